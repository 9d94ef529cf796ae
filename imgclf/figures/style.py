"""The pictures of a run. Each function returns a matplotlib Figure that belongs to nobody else (no pyplot state)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

if TYPE_CHECKING:  # a sweep's pictures are drawn without torch
    from torch import Tensor


BLUE, ORANGE, GREEN, RED, GREY = "#2f6db3", "#e0762f", "#3f9152", "#c0392b", "#666666"
LINES = (BLUE, ORANGE, GREEN, RED, "#7d5ba6", "#8c6d46", "#d16ba5", "#7f7f7f", "#a8a52e", "#31a3b5")
SPLIT_COLOURS = {"train": BLUE, "val": ORANGE, "test": GREEN}
DPI = 120


def render(figure: Figure) -> np.ndarray:
    """The figure as uint8 (H, W, 3)."""
    figure.set_dpi(DPI)
    for text in figure.findobj(Text):  # a class may be called $x$; the axes' own powers of ten are "mathdefault"
        text.set_parse_math("mathdefault" in text.get_text() or "$" not in text.get_text())
    return _rasterize(figure)


def _rasterize(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def encode_png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def image_grid(images: Tensor, captions: list[str], title: str, colour: str | list[str] = "black") -> Figure:
    columns, longest = 10, max((len(line) for caption in captions for line in caption.split("\n")), default=1)
    rows = max(1, -(-len(captions) // columns))
    lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    width = 1.15 if longest < 14 else 1.6
    figure = Figure(figsize=(columns * width, rows * (width + 0.17 * lines) + 0.5), layout="constrained")
    draw_tiles(figure.subplots(), list(images), captions, columns, colour)
    figure.suptitle(title if captions else f"{title} (none)")
    return figure


def draw_tiles(
    ax: Axes, images: Sequence[Tensor], captions: list[str], columns: int, colour: str | list[str] = "black"
) -> None:
    """Captioned images on one pair of axes: a pair for each would take a second to draw."""
    lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    longest = max((len(line) for caption in captions for line in caption.split("\n")), default=1)
    gap, head = 0.08, 0.16 * lines  # in widths of an image
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = (i % columns) * (1 + gap), (i // columns) * (1 + gap + head)
        shown = (image[0] if len(image) == 1 else image.permute(1, 2, 0)).numpy()
        top = 1 if image.is_floating_point() else 255
        extent = (x, x + 1, y + head + 1, y + head)
        ax.imshow(shown, cmap="gray", vmin=0, vmax=top, extent=extent, interpolation="nearest")
        size = 9 if longest < 14 else 7
        shade = colour if isinstance(colour, str) else colour[i]
        ax.text(x + 0.5, y + head - 0.03, caption, ha="center", va="bottom", fontsize=size, color=shade)
    rows = max(1, -(-len(captions) // columns))
    ax.set(xlim=(0, columns * (1 + gap) - gap), ylim=(rows * (1 + gap + head) - gap, 0), aspect="equal")
    ax.axis("off")


def plain_axes(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=GREY, labelcolor="black")

"""What all figures share: colours, grids of images with captions, and the steps from a figure to a PNG file."""

from __future__ import annotations

import functools
import io
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from imgclf.core.files import write_file

if TYPE_CHECKING:  # lazy: the figures of a sweep are drawn without torch
    from torch import Tensor

BLUE, ORANGE, GREEN, RED, GREY = "#2f6db3", "#e0762f", "#3f9152", "#c0392b", "#666666"
LINE_COLOURS = (BLUE, ORANGE, GREEN, RED, "#7d5ba6", "#8c6d46", "#d16ba5", "#7f7f7f", "#a8a52e", "#31a3b5")
SPLIT_COLOURS = {"train": BLUE, "val": ORANGE, "test": GREEN}
DPI = 120
COLUMNS = 10  # images in a row of a grid
WIDE_CAPTION = 14  # characters; a longer caption needs more space and a smaller font
LONGEST_LINE = 24  # characters of a caption's line

log = logging.getLogger(__name__)


def render(figure: Figure) -> np.ndarray:
    """Draws the figure: uint8 (H, W, 3)."""
    figure.set_dpi(DPI)
    fonts = ["DejaVu Sans", *_fonts_for("".join(text.get_text() for text in figure.findobj(Text)))]
    for text in figure.findobj(Text):  # a class may be called $x$; matplotlib's own formulas have "mathdefault"
        text.set_parse_math("mathdefault" in text.get_text() or "$" not in text.get_text())
        if len(fonts) > 1:
            text.set_fontfamily(fonts)
    return _rasterize(figure)


def shown_names(class_names: Sequence[str]) -> list[str]:
    """The class names as figures show them: numbered where no installed font has the characters of all."""
    if _missing("".join(class_names)) and not _fonts_for("".join(class_names)):
        _say_numbered()
        return [f"class {number}" for number in range(len(class_names))]
    return list(class_names)


@functools.cache
def _say_numbered() -> None:
    log.warning("no installed font has the characters of the class names: figures number the classes from 0")


def _missing(text: str) -> set[int]:
    """The characters that matplotlib's own font lacks."""
    own = font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_charmap()
    return {ord(character) for character in text if not character.isspace()} - own.keys()


@functools.cache
def _fonts_for(text: str) -> tuple[str, ...]:
    """The name of an installed font that has all characters that matplotlib's own lacks; empty if there is none."""
    if not (missing := _missing(text)):
        return ()
    for font in font_manager.fontManager.ttflist:
        if "Last Resort" not in font.name and missing <= font_manager.get_font(font.fname).get_charmap().keys():
            return (font.name,)
    return ()


def _rasterize(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write_figure(path: Path, figure: Figure) -> Path:
    """Draws a figure into a PNG file."""
    return write_file(path, encode_png(render(figure)))


def encode_png(pixels: np.ndarray) -> bytes:
    """The contents of a PNG file that holds the pixels, uint8 (H, W, 3)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def plot_images(images: Tensor, captions: Sequence[str], title: str, colours: Sequence[str] | None = None) -> Figure:
    """Shows images in rows of at most ten, each below its caption. Where there are no images, the title says so.

    The images are uint8, or float in [0, 1], (N, C, H, W), where C is 1 or 3. The captions are black by default.
    """
    captions = [wrap_caption(caption) for caption in captions]
    characters, lines = _caption_size(captions)
    width = 1.15 if characters < WIDE_CAPTION else max(1.4, 0.065 * characters)
    columns = COLUMNS if characters < WIDE_CAPTION else round(13 / width)
    rows = max(1, math.ceil(len(captions) / columns))
    figure = Figure(figsize=(columns * width, rows * (width + 0.17 * lines) + 0.5), layout="constrained")
    draw_images(figure.subplots(), images, captions, columns, colours)
    figure.suptitle(title if captions else f"{title} (none)")
    return figure


def wrap_caption(caption: str) -> str:
    """The caption with its long lines divided before an arrow, and shortened to ``LONGEST_LINE``."""
    lines = []
    for line in caption.split("\n"):
        lines += line.replace(" → ", "\n→ ").split("\n") if len(line) > LONGEST_LINE else [line]
    return "\n".join(shorten(line) for line in lines)


def shorten(name: str, length: int = LONGEST_LINE) -> str:
    """The name, with an ellipsis for its middle where it is longer."""
    return name if len(name) <= length else f"{name[: length // 2]}…{name[-(length - length // 2 - 1) :]}"


def draw_images(
    ax: Axes,
    images: Tensor,
    captions: Sequence[str],
    columns: int,
    colours: Sequence[str] | None = None,
    beside: Sequence[str] = (),
) -> None:
    """Draws the images of ``plot_images`` on one pair of axes, because drawing a pair for each takes a second.

    The captions are of one size with those of ``beside``, which are drawn on other axes of the figure.
    """
    characters, lines = _caption_size([*captions, *beside])
    gap, caption_height = 0.08, 0.16 * lines
    column_pitch, row_pitch = 1 + gap, 1 + gap + caption_height
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = i % columns * column_pitch, i // columns * row_pitch + caption_height
        pixels = (image[0] if len(image) == 1 else image.permute(1, 2, 0)).numpy()
        white = 1 if image.is_floating_point() else 255
        extent = (left, left + 1, top + 1, top)
        ax.imshow(pixels, cmap="gray", vmin=0, vmax=white, extent=extent, interpolation="nearest")
        size, colour = 9 if characters < WIDE_CAPTION else 7, colours[i] if colours else "black"
        ax.text(left + 0.5, top - 0.03, caption, ha="center", va="bottom", fontsize=size, color=colour)
    rows = max(1, math.ceil(len(captions) / columns))
    ax.set(xlim=(0, columns * column_pitch - gap), ylim=(rows * row_pitch - gap, 0), aspect="equal")
    ax.axis("off")


def _caption_size(captions: Sequence[str]) -> tuple[int, int]:
    """The number of characters of the longest line, and of lines of the highest caption."""
    lines = [caption.split("\n") for caption in captions]
    return max((len(line) for caption in lines for line in caption), default=1), max(map(len, lines), default=1)


def despine(ax: Axes) -> None:
    """Hides the frame at the top and on the right, and greys the ticks."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=GREY, labelcolor="black")


def set_x_labels(ax: Axes, labels: Sequence[str], angle: float = 0) -> None:
    """Labels the positions 0, 1, 2, ... of the x axis; at an angle, each label ends below its tick."""
    ax.set_xticks(range(len(labels)), labels, rotation=angle, ha="right" if angle else "center")

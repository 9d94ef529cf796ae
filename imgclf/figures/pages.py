"""A photographed page with a box around each digit."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from imgclf.figures.style import RED, shorten


def plot_page(page: np.ndarray, boxes: Sequence[tuple[int, ...]], answers: Sequence[str], title: str) -> Figure:
    """Shows a page, uint8 (H, W, 3), and each box (left, top, right, bottom) with its answer above it."""
    height, width = page.shape[:2]
    scale = 8 / max(height, width)
    figure = Figure(figsize=(max(3, width * scale), max(3, height * scale + 0.4)), layout="constrained")
    ax = figure.subplots()
    ax.imshow(page)
    ax.set_axis_off()
    for (left, top, right, bottom), answer in zip(boxes, answers, strict=True):
        ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=RED, linewidth=1.2))
        ax.text(left, top, answer, color=RED, va="bottom", fontsize=10)
    ax.set_title(shorten(title, 60), parse_math=False)
    return figure

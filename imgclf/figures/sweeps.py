"""Figures of a sweep: a metric in a grid of two options, and configurations of many options in parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from imgclf.figures.style import GREY, ORANGE, set_x_labels

LOGARITHMIC_FROM = 30  # an axis is logarithmic if its largest number is this many times the smallest, or more
MAX_TICKS = 6


def plot_metric_grid(
    values: Sequence[Sequence[float]],
    row_labels: Sequence[str],
    column_labels: Sequence[str],
    *,
    row_title: str,
    column_title: str,
    metric: str,
) -> Figure:
    """Shows the metric as a number and a colour for each row and column; a cell of NaN stays empty."""
    grid = np.asarray(values, dtype=float)
    width = 2.6 + 0.085 * max(map(len, row_labels)) + 1.05 * len(column_labels)
    figure = Figure(figsize=(max(5.5, width), max(3.6, 1.9 + 0.6 * len(row_labels))), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(grid, cmap="viridis", aspect="auto")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (row, column), value in np.ndenumerate(grid):
        if not np.isnan(value):
            colour = "black" if value > middle else "white"
            ax.text(column, row, f"{value:.4f}", ha="center", va="center", fontsize=9, color=colour)
    set_x_labels(ax, column_labels, angle=30 if max(map(len, column_labels)) > 10 else 0)
    ax.set_yticks(range(len(row_labels)), row_labels)
    ax.set(xlabel=column_title, ylabel=row_title, title=metric)
    figure.colorbar(image, ax=ax, label=metric)
    return figure


def plot_parallel_coordinates(
    settings: Sequence[dict[str, str]], values: Sequence[float], metric: str, mode: Literal["min", "max"]
) -> Figure:
    """Draws each configuration as a line that crosses an axis for each option and ends at its metric.

    An axis of numbers is to scale, logarithmic where they span more than a factor of 30; other values are evenly spaced
    in the order in which they appear. The best configuration is thick and orange; better ones are darker than others.
    All configurations have the same options; the mode says whether a low or a high metric is better.
    """
    axis_labels = {name: [setting[name] for setting in settings] for name in settings[0]}
    axis_labels[metric] = [f"{value:.4f}" for value in values]
    figure = Figure(figsize=(max(7, 1.9 * len(axis_labels)), 5.2), layout="constrained")
    ax = figure.subplots()
    heights = [_draw_axis(ax, x, labels) for x, labels in enumerate(axis_labels.values())]
    ranking = np.argsort(np.negative(values) if mode == "max" else values, kind="stable")
    shades = colormaps["Blues"](np.linspace(0.95, 0.25, len(values)))
    lines = np.transpose(heights)
    for rank, i in reversed([*enumerate(ranking)]):  # the best is drawn last, above the others
        colour, width = (shades[rank], 1.2) if rank else (ORANGE, 3)
        ax.plot(lines[i], color=colour, linewidth=width, zorder=2)
    set_x_labels(ax, [name.replace(".", ".\n", 1) for name in axis_labels])
    ax.set(xlim=(-0.15, len(axis_labels) - 0.55), ylim=(-0.06, 1.06), yticks=[])
    ax.set_title(f"{len(values)} configurations by {metric}; the best is orange, better ones are darker")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure


def _draw_axis(ax: Axes, x: int, labels: Sequence[str]) -> list[float]:
    """Draws an axis that reaches from 0 to 1, and returns the height of each label on it."""
    heights, ticks = _place_on_axis(labels)
    ax.axvline(x, color=GREY, linewidth=1)
    background = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
    for height, label in ticks:
        ax.plot([x - 0.02, x + 0.02], [height, height], color=GREY, linewidth=1)
        ax.text(x + 0.04, height, label, fontsize=8, va="center", zorder=3, bbox=background)
    return heights


def _place_on_axis(labels: Sequence[str]) -> tuple[list[float], list[tuple[float, str]]]:
    """The height of each label on an axis from 0 to 1, and the axis's ticks: a height and a label each."""
    try:
        numbers = np.array([float(label) for label in labels])
    except ValueError:
        different = list(dict.fromkeys(labels))
        height = {label: (i + 0.5) / len(different) for i, label in enumerate(different)}
        return [height[label] for label in labels], [(height[label], label) for label in different]
    low, high = numbers.min(), numbers.max()
    logarithmic = 0 < LOGARITHMIC_FROM * low < high
    marks = np.unique(numbers)
    if len(marks) > MAX_TICKS:
        marks = (np.geomspace if logarithmic else np.linspace)(low, high, MAX_TICKS - 1)
    scale = np.log if logarithmic else np.asarray
    ends = (0.5, 0.5) if low == high else (0, 1)
    heights, tick_heights = (np.interp(scale(at), scale([low, high]), ends).tolist() for at in (numbers, marks))
    return heights, [(height, f"{mark:.4g}") for height, mark in zip(tick_heights, marks, strict=True)]

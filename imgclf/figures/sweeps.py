"""The pictures of a run. Each function returns a matplotlib Figure that belongs to nobody else (no pyplot state)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from imgclf.figures.style import GREY, ORANGE


def plot_grid(
    values: Sequence[Sequence[float]],
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str,
    column_title: str,
    metric: str,
) -> Figure:
    """A heat map with its numbers: ``values`` (rows, columns), of which NaN stays empty."""
    grid = np.asarray(values, dtype=float)
    longest = max(map(len, rows))
    width, height = 2.6 + 0.085 * longest + 1.05 * len(columns), 1.9 + 0.6 * len(rows)
    figure = Figure(figsize=(max(5.5, width), max(3.6, height)), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(grid, cmap="viridis", aspect="auto")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (i, j), value in np.ndenumerate(grid):
        if value == value:
            colour = "black" if value > middle else "white"
            ax.text(j, i, f"{value:.4f}", ha="center", va="center", fontsize=9, color=colour)
    turned = max(map(len, columns)) > 10
    ax.set_xticks(range(len(columns)), columns, rotation=30 if turned else 0, ha="right" if turned else "center")
    ax.set_yticks(range(len(rows)), rows)
    ax.set(xlabel=column_title, ylabel=row_title, title=metric)
    figure.colorbar(image, ax=ax, label=metric)
    return figure


def plot_parallel_coordinates(
    settings: Sequence[dict[str, str]], values: Sequence[float], metric: str, mode: str
) -> Figure:
    """A line a configuration through an axis an option, ending at the metric, which colours it; the best is thick.

    Axes of numbers are drawn to scale (logarithmic over more than a factor of 30), others in order of appearance.

    Args:
        settings: option to value, the same options for all.
        values: the metric of each.
        metric: its name.
        mode: "min" or "max": which is better.
    """
    names = [*settings[0], metric]
    figure = Figure(figsize=(max(7, 1.9 * len(names)), 5.2), layout="constrained")
    ax = figure.subplots()
    heights = []
    for i, name in enumerate(names):
        texts = [f"{value:.4f}" for value in values] if name == metric else [setting[name] for setting in settings]
        height, ticks = _axis(texts)
        heights.append(height)
        ax.axvline(i, color=GREY, linewidth=1)
        for place, text in ticks:
            ax.plot([i - 0.02, i + 0.02], [place, place], color=GREY, linewidth=1)
            ax.text(i + 0.04, place, text, fontsize=8, va="center", zorder=3,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5})  # fmt: skip
    order = np.argsort(np.multiply(values, -1 if mode == "max" else 1), kind="stable")  # of equals the first is best
    goodness = np.empty(len(values))
    goodness[order] = np.linspace(1, 0, len(values))
    for k in order[::-1]:
        best = k == order[0]
        style: dict[str, Any] = (
            {"linewidth": 3, "color": ORANGE}
            if best
            else {"linewidth": 1.2, "color": colormaps["Blues"](0.25 + 0.7 * goodness[k])}
        )
        ax.plot(range(len(names)), [height[k] for height in heights], zorder=2, **style)
    ax.set_xticks(range(len(names)), [name.replace(".", ".\n", 1) for name in names])
    ax.set(xlim=(-0.15, len(names) - 0.55), ylim=(-0.06, 1.06), yticks=[])
    ax.set_title(f"{len(values)} configurations by {metric}; the best is orange, better ones are darker")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure


def _axis(texts: Sequence[str]) -> tuple[list[float], list[tuple[float, str]]]:
    """Where values lie on an axis from 0 to 1, and its ticks."""
    try:
        numbers = np.array([float(text) for text in texts])
    except ValueError:
        known = list(dict.fromkeys(texts))
        places = {text: (i + 0.5) / len(known) for i, text in enumerate(known)}
        return [places[text] for text in texts], [(place, text) for text, place in places.items()]
    low, high = float(numbers.min()), float(numbers.max())
    scale = np.log if low > 0 and high > 30 * low else np.asarray
    span = float(scale(high) - scale(low)) or 1.0
    known = sorted(set(numbers.tolist()))
    if len(known) > 6:
        known = np.geomspace(low, high, 5) if scale is np.log else np.linspace(low, high, 5)

    def place(value: float) -> float:
        return float(scale(value) - scale(low)) / span if high > low else 0.5

    return [place(number) for number in numbers], [(place(value), f"{value:.4g}") for value in known]

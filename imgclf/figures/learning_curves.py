"""Figures of metrics over epochs: those of one run, and those of the runs of a sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imgclf.figures.style import LINE_COLOURS, ORANGE, SPLIT_COLOURS, despine


def plot_learning_curves(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws loss, accuracy and, for two classes, AUROC of training and validation, and marks the best validation.

    There is a row for each epoch: "epoch", "train/loss", "val/loss" and so on. An undefined metric is NaN or None.
    """
    titles = {"loss": "Loss", "accuracy": "Accuracy"} | ({"auroc": "AUROC"} if "val/auroc" in rows[0] else {})
    figure = Figure(figsize=(5.5 * len(titles), 4.2), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for ax, (name, title) in zip(figure.subplots(1, len(titles)), titles.items(), strict=True):
        for split, label in (("train", "training, as trained"), ("val", "validation")):
            ax.plot(epochs, _column(rows, f"{split}/{name}"), "o-", color=SPLIT_COLOURS[split], ms=4, label=label)
        values = _column(rows, f"val/{name}")
        if not np.isnan(values).all():
            best = np.nanargmin(values) if name == "loss" else np.nanargmax(values)
            ax.plot(epochs[best], values[best], "o", markersize=10, markerfacecolor="none", color=ORANGE)
            title += f" (best validation {values[best]:.4f}, epoch {epochs[best]})"
        ax.set(title=title, xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        ax.legend(frameon=False)
        _style_epochs(ax)
    return figure


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], dtype=float)


def plot_metric_over_epochs(curves: Mapping[str, Sequence[Sequence[float]]], metric: str) -> Figure:
    """Draws a metric over epochs for each configuration: the mean over its runs, in a band of one standard deviation.

    ``curves`` has the label of each configuration and, for each of its runs, the metric of every epoch. The best
    configuration comes first; the first ten are drawn.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    ax = figure.subplots()
    for colour, (label, runs) in zip(LINE_COLOURS, curves.items(), strict=False):
        values = np.full((len(runs), max(map(len, runs))), np.nan)
        for row, run in zip(values, runs, strict=True):
            row[: len(run)] = run  # early stopping may end runs at different epochs
        epochs, mean = np.arange(1, values.shape[1] + 1), np.nanmean(values, 0)
        ax.plot(epochs, mean, "o-", color=colour, markersize=3, label=f"{label} (n = {len(runs)})")
        if len(runs) > 1:
            going_on = (~np.isnan(values)).sum(0)
            deviation = np.sqrt(np.nansum((values - mean) ** 2, 0) / np.maximum(going_on - 1, 1))
            ax.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
    title = f"{metric}: mean and standard deviation over runs"
    if len(curves) > len(LINE_COLOURS):
        title += f" (the best {len(LINE_COLOURS)} of {len(curves)})"
    ax.set(title=title, ylabel=metric)
    figure.legend(frameon=False, loc="outside lower center", ncols=1 if max(map(len, curves)) > 40 else 2)
    _style_epochs(ax)
    return figure


def _style_epochs(ax: Axes) -> None:
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    despine(ax)

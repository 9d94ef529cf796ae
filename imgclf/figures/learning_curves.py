"""The pictures of a run. Each function returns a matplotlib Figure that belongs to nobody else (no pyplot state)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from imgclf.figures.style import LINES, ORANGE, SPLIT_COLOURS, plain_axes


def plot_learning_curves(rows: list[dict[str, Any]]) -> Figure:
    """Loss, accuracy and, of two classes, AUROC over epochs, training and validation; each one's best is marked."""
    names = ("loss", "accuracy", *(["auroc"] if "val/auroc" in rows[0] else []))
    figure = Figure(figsize=(5.5 * len(names), 4.2), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    for ax, name in zip(figure.subplots(1, len(names)), names, strict=True):
        for stage, label in (("train", "training, as trained"), ("val", "validation")):
            values = [row[f"{stage}/{name}"] for row in rows]
            ax.plot(epochs, values, color=SPLIT_COLOURS[stage], marker="o", markersize=4, label=label)
        best = (min if name == "loss" else max)(rows, key=lambda row: row[f"val/{name}"])
        value = best[f"val/{name}"]
        ax.plot(best["epoch"], value, "o", markersize=10, markerfacecolor="none", color=ORANGE)
        title = "AUROC" if name == "auroc" else name.capitalize()
        ax.set(title=f"{title} (best validation {value:.4f}, epoch {best['epoch']})", xlabel="epoch")
        ax.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.legend(frameon=False)
        ax.grid(alpha=0.3)
        plain_axes(ax)
    return figure


def plot_metric_over_epochs(curves: dict[str, list[list[float]]], metric: str) -> Figure:
    """A metric over epochs, the mean over seeds with a band of one standard deviation.

    Args:
        curves: configuration to one list an epoch-wise run, the best configuration first; the first ten are drawn.
        metric: its name.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    ax = figure.subplots()
    for i, (label, runs) in enumerate(list(curves.items())[: len(LINES)]):
        values = np.full((len(runs), max(map(len, runs))), np.nan)
        for row, run in zip(values, runs, strict=True):
            row[: len(run)] = run  # early stopping may end runs at different epochs
        epochs, mean = np.arange(1, values.shape[1] + 1), np.nanmean(values, 0)
        ax.plot(epochs, mean, color=LINES[i], marker="o", markersize=3, label=f"{label} (n = {len(runs)})")
        if len(runs) > 1:
            spread = np.nan_to_num(np.sqrt(np.nansum((values - mean) ** 2, 0) / (len(runs) - 1)))
            ax.fill_between(epochs, mean - spread, mean + spread, color=LINES[i], alpha=0.2, linewidth=0)
    title = f"{metric}: mean over seeds and standard deviation"
    left_out = len(curves) - len(LINES)
    ax.set(
        title=title + (f" (the best {len(LINES)} of {len(curves)})" if left_out > 0 else ""),
        xlabel="epoch",
    )
    ax.set_ylabel(metric)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    figure.legend(frameon=False, loc="outside lower center", ncols=1 if max(map(len, curves)) > 40 else 2)
    plain_axes(ax)
    return figure

"""Curves of a classifier's probabilities: calibration, risk and coverage, ROC, precision and recall."""

from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from imgclf.core.metrics import accuracy_by_coverage
from imgclf.core.names import CALIBRATION_BINS, COVERAGES
from imgclf.figures.style import BLUE, GREY, ORANGE, despine


def plot_calibration(correct: Tensor, confidence: Tensor, title: str) -> Figure:
    """Draws how often the answers of each confidence are right: a reliability diagram in 15 bins (Guo et al. 2017).

    The title gets their calibration error: the mean distance from the diagonal, weighted by the bins' answers.
    There are N answers: whether each is right, bool (N,), and the probability of its class, float (N,) in [0, 1].
    """
    bins = (confidence * CALIBRATION_BINS).long().clamp_max(CALIBRATION_BINS - 1)
    counts, right = bins.bincount(minlength=CALIBRATION_BINS), bins[correct].bincount(minlength=CALIBRATION_BINS)
    sums = bins.bincount(confidence.double(), minlength=CALIBRATION_BINS)
    used = counts > 0
    figure = Figure(figsize=(5.6, 6), layout="constrained")
    ax, below = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    ax.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="perfectly calibrated")
    ax.plot((sums / counts)[used], (right / counts)[used], "o-", color=BLUE, label="answers")
    error = float((right - sums).abs().sum() / len(bins))
    ax.set(title=f"{title}: calibration error {error:.4f}", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
    ax.legend(frameon=False, loc="upper left")
    ax.grid(alpha=0.3)
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1)
    below.stairs((counts / len(bins)).numpy(), edges.numpy(), fill=True, color=BLUE)
    below.set(xlabel="confidence (probability of the predicted class)", ylabel="share of answers")
    for axes in (ax, below):
        despine(axes)
    return figure


def plot_risk_coverage(correct: Tensor, confidence: Tensor, title: str) -> Figure:
    """Draws the share of wrong answers among those that are kept, if the least confident ones are withheld.

    The answers are those of ``plot_calibration``. The curve begins at a coverage of 5%: below, a few answers decide.
    """
    risk = (1 - accuracy_by_coverage(correct, confidence)).numpy()
    count = len(risk)
    coverage, first = np.arange(1, count + 1) / count, count // 20
    figure = Figure(figsize=(5.6, 4.6))
    ax = figure.add_axes((0.14, 0.13, 0.83, 0.78))  # a constrained layout takes twice as long to draw
    ax.plot(coverage[first:], risk[first:], color=BLUE)
    told = []
    for percent in (*COVERAGES, 100):
        kept = max(1, round(count * percent / 100))
        ax.plot(kept / count, risk[kept - 1], "o", color=ORANGE)
        told.append(f"{percent}% answered: {risk[kept - 1]:.2%} wrong")
    ax.text(0.04, 0.96, "\n".join(told), transform=ax.transAxes, va="top", color=ORANGE)
    ax.set(title=title, xlabel="coverage (share of images that get an answer)", ylabel="risk (share of wrong answers)")
    ax.set(xlim=(0, 1.03), ylim=(0, max(0.01, 1.2 * risk[first:].max())))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    ax.grid(alpha=0.3)
    despine(ax)
    return figure


def plot_roc(labels: Tensor, scores: Tensor, threshold: float, title: str) -> Figure:
    """Draws the ROC curve and marks the sensitivity and the specificity at the threshold.

    The labels are int64 (N,), 0 or 1. The scores, float (N,) in [0, 1], are probabilities of class 1, which is
    predicted from the threshold on.
    """
    from sklearn.metrics import RocCurveDisplay  # lazy: a second

    predicted = scores >= threshold
    sensitivity = float(predicted[labels == 1].float().mean())
    specificity = float((~predicted[labels == 0]).float().mean())
    text = f"threshold {threshold:.3f}:\nsensitivity {sensitivity:.3f}\nspecificity {specificity:.3f}"
    ax = _draw_curve(RocCurveDisplay, labels, scores, (1 - specificity, sensitivity), text)
    ax.set(title=title, xlabel="1 - specificity (false positive rate)", ylabel="sensitivity (true positive rate)")
    ax.legend(loc="lower right")
    return ax.figure


def plot_precision_recall(labels: Tensor, scores: Tensor, threshold: float, title: str) -> Figure:
    """Draws precision over recall and marks both at the threshold; the arguments are those of ``plot_roc``."""
    from sklearn.metrics import PrecisionRecallDisplay  # lazy: a second

    predicted, positive = scores >= threshold, labels == 1
    recall, precision = float(predicted[positive].float().mean()), float(positive[predicted].float().mean())
    text = f"threshold {threshold:.3f}:\nrecall {recall:.3f}\nprecision {precision:.3f}"
    ax = _draw_curve(PrecisionRecallDisplay, labels, scores, (recall, precision), text)
    ax.set(title=title, xlabel="recall (sensitivity)", ylabel="precision (positive predictive value)")
    ax.legend(loc="lower left")
    return ax.figure


def _draw_curve(display: Any, labels: Tensor, scores: Tensor, point: tuple[float, float], text: str) -> Any:
    """Draws scikit-learn's display of a curve on new axes, and the operating point on top."""
    ax = Figure(figsize=(5.6, 5.4), layout="constrained").subplots()
    options = {"plot_chance_level": True, "chance_level_kw": {"color": GREY, "linestyle": "--", "linewidth": 1}}
    display.from_predictions(labels.numpy(), scores.numpy(), pos_label=1, ax=ax, **options)
    ax.lines[0].set_color(BLUE)
    ax.plot(*point, "o", color=ORANGE, markersize=8, label=text)
    ax.grid(alpha=0.3)
    despine(ax)
    return ax

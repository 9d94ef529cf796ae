"""Figures of a classifier's answers: the confusion matrix, images with answers, ROC and precision-recall, heat maps."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from imgclf.core.metrics import accuracy_by_coverage
from imgclf.core.names import COVERAGES
from imgclf.data.datasets import ImageDataset
from imgclf.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    RED,
    despine,
    draw_images,
    plot_images,
    set_x_labels,
    shorten,
    shown_names,
)

MAX_MISTAKES = 30
CALIBRATION_BINS = 15
MAX_TICKS = 40  # class names on an axis
MAX_CLASSES_WITH_NUMBERS = 20  # a confusion matrix of more classes shows colours only


def plot_confusion_matrix(counts: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """Shows counts, and each count's share of its true class, which also colours the cell.

    The counts are int64 (classes, classes): a row for each true class, a column for each predicted class.
    """
    from sklearn.metrics import ConfusionMatrixDisplay  # lazy: a second

    classes, class_names = len(class_names), [shorten(name) for name in shown_names(class_names)]
    with_numbers = classes <= MAX_CLASSES_WITH_NUMBERS
    shares = (counts / counts.sum(1, keepdim=True).clamp_min(1)).numpy()
    side = max(4.5, 0.72 * classes + 2) if with_numbers else 14
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    ax = figure.subplots()
    display = ConfusionMatrixDisplay(shares, display_labels=class_names)
    display.plot(ax=ax, cmap="Blues", include_values=with_numbers, colorbar=False, im_kw={"vmin": 0, "vmax": 1})
    set_x_labels(ax, class_names, angle=45 if max(map(len, class_names)) > 3 else 0)
    if with_numbers:
        for (row, column), text in np.ndenumerate(display.text_):
            count, share = int(counts[row, column]), shares[row, column]
            text.set_text(f"{count:,}\n{share:.1%}" if count else "")
            text.set(color="white" if share > 0.5 else "black", fontsize=8)
    else:
        ax.tick_params(labelsize=8)
        shown = range(0, classes, math.ceil(classes / MAX_TICKS))
        labels = [class_names[label] for label in shown]
        ax.set_xticks(shown, labels, rotation=60, ha="right")
        ax.set_yticks(shown, labels)
    ax.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(display.im_, ax=ax, shrink=0.7, label="share of the true class", format=PercentFormatter(1))
    return figure


def find_mistakes(labels: Tensor, predicted: Tensor, probabilities: Tensor) -> Tensor:
    """The indices of the wrong answers, int64, the most confident first; the arguments are those of plot_mistakes."""
    wrong = (predicted != labels).nonzero().flatten()
    confidence = probabilities[wrong, predicted[wrong]]
    return wrong[confidence.argsort(descending=True, stable=True)]


def plot_mistakes(
    images: ImageDataset,
    labels: Tensor,
    predicted: Tensor,
    probabilities: Tensor,
    class_names: Sequence[str],
    title: str,
) -> Figure:
    """Shows the most confident mistakes, each with its true class, its predicted class and that class's probability.

    There are N images, true classes, int64 (N,), predicted classes, int64 (N,), and probabilities, float (N, classes).
    The number of mistakes is added to the title.
    """
    class_names = shown_names(class_names)
    confidence = probabilities.gather(1, predicted[:, None])[:, 0]
    wrong = find_mistakes(labels, predicted, probabilities)
    worst = wrong[:MAX_MISTAKES]
    answers = zip(labels[worst].tolist(), predicted[worst].tolist(), confidence[worst].tolist(), strict=True)
    captions = [f"{class_names[label]} → {class_names[answer]}\n{share:.0%}" for label, answer, share in answers]
    title = f"{title}: {len(wrong):,} errors of {len(labels):,}, true → predicted"
    return plot_images(images[worst][0], captions, title, [RED] * len(captions))


def plot_label_issues(
    images: ImageDataset, labels: Tensor, suggested: Tensor, margins: Tensor, class_names: Sequence[str], title: str
) -> Figure:
    """Shows images whose labels are probably wrong, each with its rank, its label, the probable class and the margin.

    There are N images, labels and suggested classes, int64 (N,), and margins, float (N,), the largest first.
    """
    class_names = shown_names(class_names)
    shown = zip(labels.tolist(), suggested.tolist(), margins.tolist(), strict=True)
    captions = [
        f"{rank}. {shorten(class_names[label], 16)}\n→ {shorten(class_names[other], 16)} {margin:+.0%}"
        for rank, (label, other, margin) in enumerate(shown, 1)
    ]
    return plot_images(images[:][0], captions, title)


def plot_predictions(
    images: Tensor, labels: Sequence[int | None], answers: Sequence[Any], class_names: Sequence[str], title: str
) -> Figure:
    """Shows images as the network sees them, each with its answer; a wrong answer is red and names the true class.

    The images are uint8 (N, C, H, W), the answers Predictions. A label is None where the true class is unknown.
    """
    captions, colours, class_names = [], [], shown_names(class_names)
    for label, answer in zip(labels, answers, strict=True):
        wrong = label is not None and label != answer.predicted
        given = answer.class_name if answer.predicted is None else class_names[answer.predicted]
        caption = f"{class_names[label]} → {given}" if wrong else given
        captions.append(caption + ("" if answer.probability is None else f"\n{answer.probability:.0%}"))
        colours.append(RED if wrong else "black")
    return plot_images(images, captions, title, colours)


def plot_disagreements(
    images: Tensor, answers: Sequence[tuple[int, int, int]], class_names: Sequence[str], title: str
) -> Figure:
    """Shows images on which only one of two networks is right: blue if it is the first, orange if it is the second.

    The images are uint8 (N, C, H, W); the answers are the true class and those that the two networks predict.
    """
    class_names = shown_names(class_names)
    captions = [f"{class_names[a]} / {class_names[b]}" for _, a, b in answers]
    colours = [BLUE if first == label else ORANGE for label, first, _ in answers]
    return plot_images(images, captions, f"{title}: first / second answer", colours)


def plot_calibration(correct: Tensor, confidence: Tensor, title: str) -> Figure:
    """Draws how often the answers of each confidence are right: a reliability diagram in 15 bins (Guo et al. 2017).

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
    ax.set(title=title, ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.02))
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


def plot_heat_maps(images: Tensor, heat: Tensor, captions: Sequence[str], groups: dict[str, int], title: str) -> Figure:
    """Shows images, uint8 (N, C, H, W), under heat maps, float (N, H, W) in [0, 1], in a titled row for each group.

    The groups are their titles and their numbers of images, in the order of the images.
    """
    columns = max(groups.values())
    figure = Figure(figsize=(max(6, columns * 1.9), len(groups) * 2.4 + 0.5), layout="constrained")
    shown, start = overlay_heat_map(images, heat), 0
    for ax, (name, count) in zip(np.atleast_1d(figure.subplots(len(groups))), groups.items(), strict=True):
        draw_images(ax, shown[start : start + count], captions[start : start + count], columns, beside=captions)
        ax.set_title(name, loc="left", fontsize=10)
        start += count
    figure.suptitle(title)
    return figure


def overlay_heat_map(images: Tensor, heat: Tensor) -> Tensor:
    """Returns images under transparent heat maps: float (N, 3, H, W) in [0, 1].

    The images are uint8 (N, C, H, W), where C is 1 or 3. The heat is float (N, H, W) in [0, 1]; where it is 0, the
    image shows unchanged.
    """
    colours = torch.from_numpy(colormaps["jet"](heat.numpy())[..., :3]).permute(0, 3, 1, 2).float()
    alpha = 0.6 * heat[:, None]
    return images.float().div(255).expand(-1, 3, -1, -1) * (1 - alpha) + colours * alpha

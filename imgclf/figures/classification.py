"""Figures of a classifier's answers: the confusion matrix, images with answers, ROC and precision-recall, heat maps."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from imgclf.data.datasets import ImageDataset
from imgclf.figures.style import (
    BLUE,
    ORANGE,
    RED,
    draw_images,
    plot_images,
    set_x_labels,
    shorten,
    shown_names,
)

MAX_MISTAKES = 30
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

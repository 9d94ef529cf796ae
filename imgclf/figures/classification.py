"""The pictures of a run. Each function returns a matplotlib Figure that belongs to nobody else (no pyplot state)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from imgclf.figures.style import BLUE, GREY, ORANGE, RED, draw_tiles, image_grid, plain_axes

if TYPE_CHECKING:  # a sweep's pictures are drawn without torch
    from torch import Tensor

    from imgclf.data.datasets import ImageDataset


def plot_confusion_matrix(counts: Tensor, class_names: list[str], title: str) -> Figure:
    """Counts and, in brackets, percentages of the row (the true class), which also colour the cells."""
    classes = len(class_names)
    share = counts / counts.sum(1, keepdim=True).clamp_min(1)
    side = max(4.5, 0.72 * classes + 2)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    ax = figure.subplots()
    image = ax.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    if classes <= 30:
        for i in range(classes):
            for j in range(classes):
                count, colour = int(counts[i, j]), "white" if share[i, j] > 0.5 else "black"
                if count:
                    text = f"{count:,}\n{100 * float(share[i, j]):.1f}%"
                    ax.text(j, i, text, ha="center", va="center", fontsize=8, color=colour)
    turned = max(map(len, class_names)) > 3
    ax.set_xticks(range(classes), class_names, rotation=45 if turned else 0, ha="right" if turned else "center")
    ax.set_yticks(range(classes), class_names)
    ax.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(image, ax=ax, shrink=0.7, label="share of the true class", format=lambda x, _: f"{100 * x:.0f}%")
    return figure


def plot_mistakes(
    images: ImageDataset, labels: Tensor, predicted: Tensor, probabilities: Tensor, class_names: list[str], title: str
) -> Figure:
    """The up to 30 most confident errors, each with its true and predicted class and the probability given to it."""
    confidence = probabilities.gather(1, predicted[:, None])[:, 0]
    wrong = (predicted != labels).nonzero().flatten()
    worst = wrong[confidence[wrong].argsort(descending=True, stable=True)][:30]
    captions = [
        f"{class_names[labels[i]]} → {class_names[predicted[i]]}\n{100 * float(confidence[i]):.0f}%" for i in worst
    ]
    return image_grid(
        images[worst][0], captions, f"{title}: {len(wrong):,} errors of {len(labels):,}, true → predicted", RED
    )


def plot_predictions(
    images: Tensor, labels: Sequence[int | None], answers: Sequence[Any], class_names: list[str]
) -> Figure:
    """A contact sheet of what the network saw, each with its answer; wrong ones are red and say what was true.

    Args:
        images: uint8 (N, C, H, W); of more answers than images, the first N.
        labels: true classes, None where unknown.
        answers: Predictions.
        class_names: one a class.
    """
    captions, colours = [], []
    for label, answer in zip(labels[: len(images)], answers[: len(images)], strict=True):
        wrong = label is not None and label != answer.predicted
        text = f"{class_names[label]} → {answer.class_name}" if wrong else answer.class_name
        captions.append(text + ("" if answer.probability is None else f"\n{100 * answer.probability:.0f}%"))
        colours.append(RED if wrong else "black")
    title = "What the network saw, and its answers"
    if len(answers) > len(images):
        title += f" (the first {len(images)} of {len(answers):,})"
    return image_grid(images, captions, title, colours)


def plot_roc(labels: Tensor, scores: Tensor, threshold: float, title: str) -> Figure:
    """The ROC curve with the operating point of ``threshold``; labels int64, scores float in [0, 1], both (N,)."""
    from sklearn.metrics import roc_curve

    false_positives, sensitivity, _ = roc_curve(labels, scores)
    chosen = scores >= threshold
    point = (float(chosen[labels == 0].float().mean()), float(chosen[labels == 1].float().mean()))
    text = f"threshold {threshold:.3f}:\nsensitivity {point[1]:.3f}\nspecificity {1 - point[0]:.3f}"
    figure = _operating_curve(false_positives, sensitivity, point, text, title)
    ax = figure.axes[0]
    ax.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1)
    ax.set(xlabel="1 - specificity (false positive rate)", ylabel="sensitivity (true positive rate)")
    return figure


def plot_precision_recall(labels: Tensor, scores: Tensor, threshold: float, title: str) -> Figure:
    """Precision over recall with the operating point of ``threshold``; arguments as of ``roc``."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(labels, scores)
    chosen, positive = scores >= threshold, labels == 1
    hits = float((chosen & positive).sum())
    point = (hits / float(positive.sum()), hits / max(1.0, float(chosen.sum())))
    text = f"threshold {threshold:.3f}:\nrecall {point[0]:.3f}\nprecision {point[1]:.3f}"
    figure = _operating_curve(recall, precision, point, text, title)
    share = float(positive.float().mean())
    figure.axes[0].axhline(share, linestyle="--", color=GREY, linewidth=1)
    figure.axes[0].set(xlabel="recall (sensitivity)", ylabel="precision (positive predictive value)")
    return figure


def _operating_curve(x: np.ndarray, y: np.ndarray, point: tuple[float, float], text: str, title: str) -> Figure:
    figure = Figure(figsize=(5.6, 5.4), layout="constrained")
    ax = figure.subplots()
    ax.plot(x, y, color=BLUE, drawstyle="steps-post" if x[0] < x[-1] else "steps-pre")
    ax.plot(*point, "o", color=ORANGE, markersize=8)
    ground = {"facecolor": "white", "edgecolor": "none"}  # a line of chance passes behind it
    ax.annotate(text, (0.95, 0.08), xycoords="axes fraction", ha="right", va="bottom", color=ORANGE, bbox=ground)
    ax.set(title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    ax.grid(alpha=0.3)
    plain_axes(ax)
    return figure


def plot_heat_maps(images: Tensor, heat: Tensor, captions: list[str], groups: dict[str, int], title: str) -> Figure:
    """Images under a transparent heat map, a titled row for each group.

    Args:
        images: uint8 (N, C, H, W).
        heat: float (N, H, W) in [0, 1].
        captions: of the images, N.
        groups: title to number of images, in order; N in all.
        title: of the figure.
    """
    columns = max(groups.values())
    figure = Figure(figsize=(max(6, columns * 1.9), len(groups) * 2.4 + 0.5), layout="constrained")
    shown = overlay_heat_map(images, heat).split(list(groups.values()))
    texts = iter(captions)
    for ax, name, tiles in zip(np.atleast_1d(figure.subplots(len(groups))), groups, shown, strict=True):
        draw_tiles(ax, list(tiles), list(islice(texts, len(tiles))), columns)
        ax.set_title(name, loc="left", fontsize=10)
    figure.suptitle(title)
    return figure


def overlay_heat_map(images: Tensor, heat: Tensor) -> Tensor:
    """Images under a transparent heat map: float (N, 3, H, W) in [0, 1].

    Args:
        images: uint8 (N, C, H, W), C 1 or 3.
        heat: float (N, H, W) in [0, 1]; nothing shows where it is 0.
    """
    import torch

    colours = torch.from_numpy(colormaps["jet"](heat.numpy())[..., :3]).permute(0, 3, 1, 2).float()
    alpha = 0.6 * heat[:, None]
    return images.float().div(255).expand(-1, 3, -1, -1) * (1 - alpha) + colours * alpha

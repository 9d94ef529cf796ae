"""The pictures of a run. Each function returns a matplotlib Figure that belongs to nobody else (no pyplot state)."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator, NullFormatter
from PIL import Image

if TYPE_CHECKING:  # a sweep's pictures are drawn without torch
    from torch import Tensor

    from imgclf.data.images import Images

BLUE, ORANGE, GREEN, RED, GREY = "#2f6db3", "#e0762f", "#3f9152", "#c0392b", "#666666"
LINES = (BLUE, ORANGE, GREEN, RED, "#7d5ba6", "#8c6d46", "#d16ba5", "#7f7f7f", "#a8a52e", "#31a3b5")
SPLIT_COLOURS = {"train": BLUE, "val": ORANGE, "test": GREEN}
DPI = 120
PER_CLASS = 1000, 2**22  # images and pixels a class at most that the mean image and the histogram are taken over


def render(figure: Figure) -> np.ndarray:
    """The figure as uint8 (H, W, 3)."""
    figure.set_dpi(DPI)
    for text in figure.findobj(Text):  # a class may be called $x$; the axes' own powers of ten are "mathdefault"
        text.set_parse_math("mathdefault" in text.get_text() or "$" not in text.get_text())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return file.getvalue()


def data(splits: dict[str, Images], class_names: list[str]) -> Figure:
    """Class counts per split, the mean image of each class and the intensity histogram."""
    import torch

    classes = len(class_names)
    columns = min(classes, 12)
    rows = -(-classes // columns)
    figure = Figure(figsize=(12, 5 + 1.5 * rows), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[4.4, 0.6 + 1.5 * rows])  # pyrefly: ignore[not-iterable]
    counts_axes, histogram_axes = top.subplots(1, 2, width_ratios=[3, 2])
    width = 0.8 / len(splits)
    for i, (name, images) in enumerate(splits.items()):
        counts = torch.bincount(images.targets, minlength=classes)
        places = np.arange(classes) + (i - (len(splits) - 1) / 2) * width
        label = f"{name} ({len(images):,})"
        counts_axes.bar(places, counts.numpy(), width * 0.92, label=label, color=SPLIT_COLOURS[name])
    counts_axes.set_title("Images per class", loc="left")
    counts_axes.set_xticks(range(classes), class_names, rotation=0 if sum(map(len, class_names)) < 50 else 40)
    counts_axes.legend(frameon=False, ncols=len(splits), loc="lower right", bbox_to_anchor=(1, 1))
    _plain(counts_axes)

    shown = next(iter(splits.values()))
    per_class = max(1, min(PER_CLASS[0], PER_CLASS[1] // math.prod(shown.images.shape[1:])))
    means, sample = [], []
    for label in range(classes):
        members = (shown.targets == label).nonzero().flatten()[:per_class]
        chosen = shown[members][0] if len(members) else shown.images.new_zeros(1, *shown.images.shape[1:])
        means.append(chosen.float().mean(0))
        sample.append(chosen.flatten())
    histogram = torch.bincount(torch.cat(sample).int(), minlength=256).double()
    share = histogram.view(64, 4).sum(1) / histogram.sum()
    histogram_axes.bar(np.arange(64) * 4 + 2, share.numpy(), width=4, color=BLUE)
    histogram_axes.set_yscale("log")
    histogram_axes.set_ylim(bottom=10.0 ** math.floor(math.log10(float(share[share > 0].min()))))
    histogram_axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
    histogram_axes.yaxis.set_minor_formatter(NullFormatter())
    histogram_axes.set_title(f"Intensity of {next(iter(splits))} pixels", loc="left")
    histogram_axes.set(xlabel="grey level", ylabel="share of pixels (log scale)")
    _plain(histogram_axes)

    _tiles(bottom.subplots(), [mean.round().to(torch.uint8) for mean in means], list(class_names), columns)
    bottom.suptitle("Mean image of each class")
    return figure


def samples(images: Tensor, labels: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """A labelled grid of up to 50 images: uint8, or float in [0, 1], (N, C, H, W)."""
    return _grid(images[:50], [class_names[label] for label in labels[:50].tolist()], title)


def curves(rows: list[dict[str, Any]]) -> Figure:
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
        _plain(ax)
    return figure


def confusion_matrix(counts: Tensor, class_names: list[str], title: str) -> Figure:
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


def mistakes(
    images: Images, labels: Tensor, predicted: Tensor, probabilities: Tensor, class_names: list[str], title: str
) -> Figure:
    """The up to 30 most confident errors, each with its true and predicted class and the probability given to it."""
    confidence = probabilities.gather(1, predicted[:, None])[:, 0]
    wrong = (predicted != labels).nonzero().flatten()
    worst = wrong[confidence[wrong].argsort(descending=True, stable=True)][:30]
    captions = [
        f"{class_names[labels[i]]} → {class_names[predicted[i]]}\n{100 * float(confidence[i]):.0f}%" for i in worst
    ]
    return _grid(
        images[worst][0], captions, f"{title}: {len(wrong):,} errors of {len(labels):,}, true → predicted", RED
    )


def predictions(images: Tensor, labels: Sequence[int | None], answers: Sequence[Any], class_names: list[str]) -> Figure:
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
    return _grid(images, captions, title, colours)


def roc(labels: Tensor, scores: Tensor, threshold: float, title: str) -> Figure:
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


def precision_recall(labels: Tensor, scores: Tensor, threshold: float, title: str) -> Figure:
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
    _plain(ax)
    return figure


def heat_maps(images: Tensor, heat: Tensor, captions: list[str], groups: dict[str, int], title: str) -> Figure:
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
    shown = overlay(images, heat).split(list(groups.values()))
    texts = iter(captions)
    for ax, name, tiles in zip(np.atleast_1d(figure.subplots(len(groups))), groups, shown, strict=True):
        _tiles(ax, list(tiles), list(islice(texts, len(tiles))), columns)
        ax.set_title(name, loc="left", fontsize=10)
    figure.suptitle(title)
    return figure


def overlay(images: Tensor, heat: Tensor) -> Tensor:
    """Images under a transparent heat map: float (N, 3, H, W) in [0, 1].

    Args:
        images: uint8 (N, C, H, W), C 1 or 3.
        heat: float (N, H, W) in [0, 1]; nothing shows where it is 0.
    """
    import torch

    colours = torch.from_numpy(colormaps["jet"](heat.numpy())[..., :3]).permute(0, 3, 1, 2).float()
    alpha = 0.6 * heat[:, None]
    return images.float().div(255).expand(-1, 3, -1, -1) * (1 - alpha) + colours * alpha


def bands(curves: dict[str, list[list[float]]], metric: str) -> Figure:
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
    ax.set(title=title + (f" (the best {len(LINES)} of {len(curves)})" if left_out > 0 else ""), xlabel="epoch")
    ax.set_ylabel(metric)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    figure.legend(frameon=False, loc="outside lower center", ncols=1 if max(map(len, curves)) > 40 else 2)
    _plain(ax)
    return figure


def annotated_grid(
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


def parallel_coordinates(settings: Sequence[dict[str, str]], values: Sequence[float], metric: str, mode: str) -> Figure:
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


def _grid(images: Tensor, captions: list[str], title: str, colour: str | list[str] = "black") -> Figure:
    columns, longest = 10, max((len(line) for caption in captions for line in caption.split("\n")), default=1)
    rows = max(1, -(-len(captions) // columns))
    lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    width = 1.15 if longest < 14 else 1.6
    figure = Figure(figsize=(columns * width, rows * (width + 0.17 * lines) + 0.5), layout="constrained")
    _tiles(figure.subplots(), list(images), captions, columns, colour)
    figure.suptitle(title if captions else f"{title} (none)")
    return figure


def _tiles(
    ax: Axes, images: Sequence[Tensor], captions: list[str], columns: int, colour: str | list[str] = "black"
) -> None:
    """Captioned images on one pair of axes: a pair for each would take a second to draw."""
    lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    longest = max((len(line) for caption in captions for line in caption.split("\n")), default=1)
    gap, head = 0.08, 0.16 * lines  # in widths of an image
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = (i % columns) * (1 + gap), (i // columns) * (1 + gap + head)
        shown = (image[0] if len(image) == 1 else image.permute(1, 2, 0)).numpy()
        top = 1 if image.is_floating_point() else 255
        extent = (x, x + 1, y + head + 1, y + head)
        ax.imshow(shown, cmap="gray", vmin=0, vmax=top, extent=extent, interpolation="nearest")
        size = 9 if longest < 14 else 7
        shade = colour if isinstance(colour, str) else colour[i]
        ax.text(x + 0.5, y + head - 0.03, caption, ha="center", va="bottom", fontsize=size, color=shade)
    rows = max(1, -(-len(captions) // columns))
    ax.set(xlim=(0, columns * (1 + gap) - gap), ylim=(rows * (1 + gap + head) - gap, 0), aspect="equal")
    ax.axis("off")


def _plain(ax: Axes) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(colors=GREY, labelcolor="black")

"""Figures of a dataset: how many images each class has, their grey levels, the mean image of each class, samples."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Tensor

from imgclf.data.datasets import ImageDataset
from imgclf.figures.style import (
    BLUE,
    SPLIT_COLOURS,
    despine,
    draw_images,
    plot_images,
    set_x_labels,
    shorten,
    shown_names,
)

MAX_IMAGES, MAX_PIXELS = 1000, 2**22  # of each class, for its mean image and the histogram
MAX_SAMPLES = 50
MAX_CLASSES = 30  # of more, the largest and the smallest are shown
GREY_LEVELS, BINS = 256, 64


def plot_dataset(splits: dict[str, ImageDataset], class_names: Sequence[str]) -> Figure:
    """Shows the number of images of each class in each split, and the first split's grey levels and mean images.

    The splits are named "train", "val" or "test"; there is at least one. Of more than ``MAX_CLASSES`` classes, the
    numbers of images are drawn in their order, and the mean images are those of the largest and the smallest.
    """
    class_names = shown_names(class_names)
    classes, sizes = len(class_names), next(iter(splits.values())).targets.bincount(minlength=len(class_names))
    order, shown, title = sizes.argsort(descending=True, stable=True), torch.arange(classes), "Mean image of each class"
    if classes > MAX_CLASSES:
        shown = torch.cat([order[:12], order[-12:]])
        title = "Mean images of the 12 classes with the most images and of the 12 with the fewest"
    columns = min(len(shown), 12)
    means_height = 0.6 + 1.5 * math.ceil(len(shown) / columns)
    figure = Figure(figsize=(12, 4.4 + means_height), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[4.4, means_height])  # pyrefly: ignore[not-iterable]
    counts_axes, histogram_axes = top.subplots(1, 2, width_ratios=[3, 2])
    if classes > MAX_CLASSES:
        _draw_class_sizes(counts_axes, splits, order)
    else:
        _draw_class_counts(counts_axes, splits, class_names)
    counts_axes.set_title("Images per class", loc="left")
    counts_axes.legend(frameon=False, ncols=len(splits), loc="lower right", bbox_to_anchor=(1, 1))
    despine(counts_axes)
    name, images = next(iter(splits.items()))
    means, histogram = _class_means_and_histogram(images, len(class_names))
    histogram_axes.set_title(f"Intensity of {name} pixels", loc="left")
    _draw_histogram(histogram_axes, histogram)
    captions = [shorten(class_names[label], 16) for label in shown.tolist()]
    draw_images(bottom.subplots(), means[shown], captions, columns)
    bottom.suptitle(title)
    return figure


def _draw_class_counts(ax: Axes, splits: dict[str, ImageDataset], class_names: Sequence[str]) -> None:
    positions, width = np.arange(len(class_names)), 0.8 / len(splits)
    for i, (name, images) in enumerate(splits.items()):
        counts, label = images.targets.bincount(minlength=len(class_names)), f"{name} ({len(images):,})"
        offset = (i - (len(splits) - 1) / 2) * width
        ax.bar(positions + offset, counts, width * 0.92, label=label, color=SPLIT_COLOURS[name])
    class_names = [shorten(name) for name in class_names]
    set_x_labels(ax, class_names, angle=0 if sum(map(len, class_names)) < 50 else 40)


def _draw_class_sizes(ax: Axes, splits: dict[str, ImageDataset], order: Tensor) -> None:
    """Draws how many images each of many classes has, in the order of their sizes in the first split."""
    for name, images in splits.items():
        counts = images.targets.bincount(minlength=len(order))[order]
        ax.step(np.arange(1, len(order) + 1), counts, label=f"{name} ({len(images):,})", color=SPLIT_COLOURS[name])
    ax.set(xlabel=f"{len(order):,} classes, by their number of {next(iter(splits))} images", ylim=(0, None))


def _class_means_and_histogram(images: ImageDataset, classes: int) -> tuple[Tensor, np.ndarray]:
    """Each class's mean image, uint8 (classes, C, H, W), black for an empty class, and the count of each grey level."""
    shape = images.images.shape[1:]
    per_class = max(1, min(MAX_IMAGES, MAX_PIXELS // math.prod(shape)))
    means = torch.zeros(classes, *shape, dtype=torch.uint8)
    histogram = torch.zeros(GREY_LEVELS, dtype=torch.int64)
    for label in range(classes):
        rows = (images.targets == label).nonzero().flatten()[:per_class]
        if len(rows):
            members, _ = images[rows]
            means[label] = members.float().mean(0).round()
            histogram += members.flatten().bincount(minlength=GREY_LEVELS)
    return means, histogram.numpy()


def _draw_histogram(ax: Axes, histogram: np.ndarray) -> None:
    shares = histogram.reshape(BINS, -1).sum(1) / max(1, histogram.sum())
    ax.stairs(shares, np.linspace(0, GREY_LEVELS, BINS + 1), fill=True, color=BLUE)
    ax.set(xlabel="grey level", ylabel="share of pixels (log scale)", yscale="log")
    ax.set_ylim(bottom=10.0 ** math.floor(math.log10(shares[shares > 0].min(initial=1.0))))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if shares.max() < 100 * ax.get_ylim()[0] else (1,)))
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    ax.yaxis.set_minor_formatter(NullFormatter())
    despine(ax)


def plot_samples(images: Tensor, labels: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """Shows the first 50 images, uint8 or float in [0, 1] (N, C, H, W), each below the name of its class."""
    class_names = shown_names(class_names)
    captions = [class_names[label] for label in labels[:MAX_SAMPLES].tolist()]
    return plot_images(images[:MAX_SAMPLES], captions, title)

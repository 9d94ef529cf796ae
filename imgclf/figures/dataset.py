"""The pictures of a run. Each function returns a matplotlib Figure that belongs to nobody else (no pyplot state)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from imgclf.figures.style import BLUE, SPLIT_COLOURS, draw_tiles, image_grid, plain_axes

if TYPE_CHECKING:  # a sweep's pictures are drawn without torch
    from torch import Tensor

    from imgclf.data.datasets import ImageDataset
PER_CLASS = 1000, 2**22  # images and pixels a class at most that the mean image and the histogram are taken over


def plot_dataset(splits: dict[str, ImageDataset], class_names: list[str]) -> Figure:
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
    plain_axes(counts_axes)

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
    plain_axes(histogram_axes)

    draw_tiles(bottom.subplots(), [mean.round().to(torch.uint8) for mean in means], list(class_names), columns)
    bottom.suptitle("Mean image of each class")
    return figure


def plot_samples(images: Tensor, labels: Tensor, class_names: Sequence[str], title: str) -> Figure:
    """A labelled grid of up to 50 images: uint8, or float in [0, 1], (N, C, H, W)."""
    return image_grid(images[:50], [class_names[label] for label in labels[:50].tolist()], title)

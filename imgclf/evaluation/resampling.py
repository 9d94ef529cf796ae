"""The bootstrap: resamples of a split's images, as weights, and the metrics of many resamples at once."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from imgclf.core import rng
from imgclf.core.names import CALIBRATION_BINS

BLOCK = 100  # resamples at a time, so that ten thousand images take a few MB


def resample(count: int, resamples: int, groups: Sequence[str | None] | None = None) -> Iterator[Tensor]:
    """Draws as many groups as there are, with replacement, ``resamples`` times; every call draws the same ones.

    Args:
        count: the number of images, N.
        groups: the patient, writer or scene of each image. An image whose group is None, or all images if ``groups``
            is, are groups of their own.

    Yields:
        How often each image is in each resample, float64 (up to ``BLOCK``, N).
    """
    members = unit_of_image(count, groups)
    size = int(members.max()) + 1
    generator = rng.generator("bootstrap")
    for start in range(0, resamples, BLOCK):
        draws = torch.randint(size, (min(BLOCK, resamples - start), size), generator=generator)
        one = torch.ones((), dtype=torch.float64)
        times = torch.zeros(draws.shape, dtype=torch.float64).scatter_add_(1, draws, one.expand_as(draws))
        yield times[:, members]


def unit_of_image(count: int, groups: Sequence[str | None] | None = None) -> Tensor:
    """The number of the group of each image, int64 (N,); the arguments are those of ``resample``."""
    units = [row if group is None else f"group {group}" for row, group in enumerate(groups or [None] * count)]
    numbers = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    return torch.tensor([numbers[unit] for unit in units])


def tally(weights: Tensor, labels: Tensor, predicted: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Counts for each resample and class, float64 (R, classes): right answers, images of it, and answers of it.

    The weights, float64 (R, N), are those of ``resample``; labels and predicted classes are int64 (N,).
    """
    right = labels == predicted
    pairs = ((labels[right], weights[:, right]), (labels, weights), (predicted, weights))
    empty = weights.new_zeros(len(weights), num_classes)
    hits, images, answers = (empty.index_add(1, classes, times) for classes, times in pairs)
    return hits, images, answers


def weighted_metrics(
    weights: Tensor, labels: Tensor, predicted: Tensor, probabilities: Tensor, losses: Tensor
) -> dict[str, Tensor]:
    """Computes what ``classification_metrics`` does, and the loss, for every resample at once.

    Args:
        weights: how often each image is in each resample, float64 (R, N).
        labels, predicted: true and predicted classes, int64 (N,).
        probabilities: float (N, classes).
        losses: float (N,).

    Returns:
        Name to float64 (R,); NaN where the metric is undefined.
    """
    hits, images, answers = tally(weights, labels, predicted, probabilities.shape[1])
    occurs, total = (images + answers) > 0, weights.sum(1)

    def macro(values: Tensor) -> Tensor:
        """The mean over the classes that occur; one of which there are no images, or no answers, counts as 0."""
        return values.nan_to_num(0).mul(occurs).sum(1) / occurs.sum(1)

    accuracy, chance = hits.sum(1) / total, (images * answers).sum(1) / total**2
    values = {
        "loss": weights @ losses.double() / total,
        "accuracy": accuracy,
        "precision": macro(hits / answers),
        "recall": macro(hits / images),
        "f1": macro(2 * hits / (images + answers)),
        "kappa": (accuracy - chance) / (1 - chance),
    }
    if probabilities.shape[1] == 2:
        scores = probabilities[:, 1].contiguous()
        values |= _curves(weights, scores, labels)
        values |= {"sensitivity": hits[:, 1] / images[:, 1], "specificity": hits[:, 0] / images[:, 0]}
        confidence = probabilities.gather(1, predicted[:, None])[:, 0]
        values["calibration_error"] = _calibration_error(weights, confidence, predicted == labels)
    return values


def weighted_auroc(weights: Tensor, probabilities: Tensor, labels: Tensor) -> Tensor:
    """The macro average of the areas of one class against the rest, for more than two classes: float64 (R,).

    The average is over the classes that have images in the resample, as in ``many_class_metrics``.
    """
    areas = [
        _curves(weights, probabilities[:, label], (labels == label).long())["auroc"]
        for label in labels.unique().tolist()
    ]
    return torch.stack(areas).nanmean(0)


def _curves(weights: Tensor, scores: Tensor, labels: Tensor) -> Mapping[str, Tensor]:
    """The areas under the ROC and the precision-recall curve, float64 (R,); images of equal score count together."""
    levels, level = scores.unique(return_inverse=True)
    empty = weights.new_zeros(len(weights), len(levels))
    negative, positive = (empty.index_add(1, level[labels == label], weights[:, labels == label]) for label in (0, 1))
    positives, negatives = positive.sum(1), negative.sum(1)
    below = negative.cumsum(1) - negative / 2
    # From the highest score downwards: what is predicted as positive if the threshold is this score.
    found = positive.flip(1).cumsum(1)
    precision = (found / (found + negative.flip(1).cumsum(1))).nan_to_num(0)
    return {
        "auroc": (positive * below).sum(1) / (positives * negatives),
        "average_precision": (positive.flip(1) * precision).sum(1) / positives,
    }


def _calibration_error(weights: Tensor, confidence: Tensor, correct: Tensor) -> Tensor:
    """That of torchmetrics, for every resample: float64 (R,)."""
    edges = torch.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = torch.bucketize(confidence, edges, right=True)
    gaps = weights.new_zeros(len(weights), len(edges) + 1)
    gaps.index_add_(1, bins, weights * (correct.double() - confidence.double()))
    return gaps.abs().sum(1) / weights.sum(1)

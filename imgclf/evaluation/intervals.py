"""Confidence intervals of metrics."""

import torch
from torch import Tensor

from imgclf.core.validation import Positive, checked
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.resampling import resample, tally, weighted_metrics

TAILS = (0.025, 0.975)


@checked
def bootstrap_intervals(evaluation: Evaluation, resamples: Positive = 1000) -> dict[str, tuple[float, float]]:
    """Computes the 95% confidence interval of every metric, with the percentile bootstrap (Efron 1979).

    Where the groups of the images are known, such as patients, whole groups are resampled: images of one patient
    resemble each other, so that intervals from single images would be too narrow. Every call draws the same resamples.
    For two classes, a resample without one of the split's classes is left out, because metrics such as sensitivity are
    undefined there.

    Returns:
        The names of ``evaluation.metrics_of`` to the lower and the upper bound; NaN where the metric is undefined.
    """
    labels, names = evaluation.labels, list(evaluation.metrics_of(torch.arange(len(evaluation.labels))))
    draws: list[Tensor] = []
    for weights in resample(len(labels), resamples, evaluation.groups):
        if evaluation.num_classes == 2:
            _, images, _ = tally(weights, labels, evaluation.predicted, 2)
            weights = weights[(images > 0).sum(1) == len(labels.unique())]
        if not len(weights):
            continue
        values = weighted_metrics(weights, labels, evaluation.predicted, evaluation.probabilities, evaluation.losses)
        if others := [name for name in names if name.partition("/")[2] not in values]:  # torchmetrics alone knows them
            rows = [torch.arange(len(labels)).repeat_interleave(times.long()) for times in weights]
            drawn = [evaluation.metrics_of(row) for row in rows]
            values |= {name.partition("/")[2]: torch.stack([one[name] for one in drawn]).double() for name in others}
        draws.append(torch.stack([values[name.partition("/")[2]] for name in names], 1))
    return dict(zip(names, bounds(torch.cat(draws)), strict=True))


def bounds(draws: Tensor) -> list[tuple[float, float]]:
    """The 95% interval of each column of float64 (resamples, columns); NaN, an undefined value, is left out."""
    low, high = draws.nanquantile(torch.tensor(TAILS, dtype=torch.float64), dim=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))

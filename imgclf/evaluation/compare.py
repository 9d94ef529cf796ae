"""Compares the answers of two networks to the same images."""

import logging
import math
from typing import NamedTuple

import torch
from torch import Tensor

from imgclf.core.console import print_line, print_table
from imgclf.core.validation import Positive, checked
from imgclf.evaluation.answers import Answers, pair, read_answers
from imgclf.evaluation.intervals import bounds
from imgclf.evaluation.report import write_figures
from imgclf.evaluation.resampling import resample, weighted_auroc, weighted_metrics
from imgclf.evaluation.run_images import find_run_images
from imgclf.figures.classification import plot_disagreements
from imgclf.runs.run_dir import RunDir

SHOWN = 60  # images on the contact sheet
COLUMNS = ["file", "label_name", "right", "first_class_name", "second_class_name", "first_p(label)", "second_p(label)"]
LEAST = 5e-7  # half of the last digit of a probability in predictions.csv

log = logging.getLogger(__name__)


class Difference(NamedTuple):
    """A metric of two networks on the same images."""

    first: float
    second: float
    difference: float  # the second minus the first
    low: float  # the bounds of its 95% interval
    high: float


@checked
def differences(
    first: Answers, second: Answers, groups: list[str | None] | None = None, resamples: Positive = 1000
) -> dict[str, Difference]:
    """Computes every metric of both, and the difference with its 95% interval from the paired bootstrap.

    Each resample is of the same images for both, and of whole groups, such as patients, where these are known. The
    answers have been brought into one order by ``pair``. The loss is computed from rounded probabilities.
    """

    def values(weights: Tensor) -> dict[str, Tensor]:
        """Each metric of the first network and the second: float64 (R, 2)."""
        both = []
        for answers in (first, second):
            labels, shares = answers.labels, answers.probabilities
            losses = -shares.gather(1, labels[:, None])[:, 0].clamp_min(LEAST).log()
            metrics = weighted_metrics(weights, labels, answers.predicted, shares, losses)
            if len(answers.class_names) > 2:
                metrics["auroc"] = weighted_auroc(weights, shares, labels)
            both.append(metrics)
        return {name: torch.stack([metrics[name] for metrics in both], 1) for name in both[0]}

    count = len(first.files)
    found = values(torch.ones(1, count, dtype=torch.float64))
    blocks = [values(weights) for weights in resample(count, resamples, groups)]
    draws = {name: torch.cat([block[name] for block in blocks]) for name in found}
    intervals = bounds(torch.stack([pairs[:, 1] - pairs[:, 0] for pairs in draws.values()], 1))
    compared = {}
    for (name, pairs), (low, high) in zip(found.items(), intervals, strict=True):
        one, other = pairs[0].tolist()
        compared[name] = Difference(one, other, other - one, low, high)
    return compared


def mcnemar(first: Answers, second: Answers) -> tuple[int, int, float]:
    """McNemar's exact test (McNemar 1947): whether two networks are right equally often.

    It takes the images as independent of each other.

    Returns:
        The number of images on which only the first one is right, that of the second, and the two-sided p-value.
    """
    from scipy.stats import binomtest  # lazy: scipy's statistics take a second

    right = [answers.predicted == answers.labels for answers in (first, second)]
    only_first, only_second = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    total = only_first + only_second
    return only_first, only_second, float(binomtest(only_first, total).pvalue) if total else 1.0


def compare(run_dir: RunDir, first_source: str, second_source: str) -> dict[str, Difference]:
    """Compares two run folders, evaluations or predictions.csv of the same images.

    It writes comparison.json (metrics, differences, McNemar's test), comparison.csv (the images on which only one is
    right) and, where the images can be read, figures/comparison.png; and prints what they say.

    Raises:
        FileNotFoundError, ValueError: as ``read_answers`` and ``pair`` do.
    """
    first, second = pair(read_answers(first_source), read_answers(second_source))
    answered = ((first.predicted >= 0) & (second.predicted >= 0)).nonzero().flatten().tolist()
    if len(answered) < len(first.files):
        log.warning("left out %d images that one of them gives no answer to", len(first.files) - len(answered))
        first, second = first.select(answered), second.select(answered)
    if not answered:
        raise ValueError(f"{first.source} and {second.source}: there is no image that both give an answer to")
    images = find_run_images([first_source, second_source], first.files)
    found = differences(first, second, images.groups)
    only_first, only_second, p_value = mcnemar(first, second)
    summary = {"first": first.source, "second": second.source, "images": len(first.files)}
    summary |= {"only_first_right": only_first, "only_second_right": only_second, "mcnemar_p": p_value}
    metrics = {name: difference._asdict() for name, difference in found.items()}
    run_dir.write_json("comparison.json", {**summary, "metrics": metrics})

    rows, names = _disagreements(first, second), first.class_names
    answers = [(int(first.labels[row]), int(first.predicted[row]), int(second.predicted[row])) for row in rows]
    table = []
    for row, (label, one, other) in zip(rows, answers, strict=True):
        shares = [f"{float(each.probabilities[row, label]):.6f}" for each in (first, second)]
        right = "first" if one == label else "second"
        table.append((first.files[row], names[label], right, names[one], names[other], *shares))
    run_dir.write_csv("comparison.csv", COLUMNS, table)
    pictures = images.read(rows[:SHOWN])
    if pictures is None:
        log.warning("the images cannot be found again, so there is no contact sheet of them")
    else:
        title = f"Only the first is right (blue, {only_first:,} images), or only the second (orange, {only_second:,})"
        figure = plot_disagreements(pictures, answers[:SHOWN], names, title)
        write_figures(run_dir, {"comparison": figure})

    groups = "" if not any(images.groups or []) else ", whole groups of which are resampled"
    _print(found, f"{len(first.files):,} images{groups}")
    for line in (
        f"first: {first.source}",
        f"second: {second.source}",
        f"only the first is right on {only_first:,} images, only the second on {only_second:,}: "
        f"p = {p_value:.4g} (McNemar's exact test)",
        f"comparison.csv is in {run_dir.path}",
    ):
        print_line(line)
    return found


def _disagreements(first: Answers, second: Answers) -> list[int]:
    """The images on which only one is right; those on which the probabilities of the true class differ most first."""
    shares = [each.probabilities.gather(1, each.labels[:, None])[:, 0] for each in (first, second)]
    right = [each.predicted == each.labels for each in (first, second)]
    rows = (right[0] != right[1]).nonzero().flatten()
    gaps = (shares[0] - shares[1]).abs()[rows]
    return rows[gaps.argsort(descending=True, stable=True)].tolist()


def _print(found: dict[str, Difference], title: str) -> None:
    rows = [
        (name, f"{one:.4f}", f"{other:.4f}", f"{difference:+.4f}", f"{low:+.4f} to {high:+.4f}")
        for name, (one, other, difference, low, high) in found.items()
        if not math.isnan(difference)
    ]
    print_table(title, ["metric", "first", "second", "difference", "95% interval"], rows)

from dataclasses import replace

import numpy as np
import pytest
import torch

from imgclf.core.metrics import many_class_metrics
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.intervals import bootstrap_intervals
from imgclf.evaluation.resampling import resample, weighted_auroc, weighted_metrics
from imgclf.evaluation.tables import PER_CLASS_COLUMNS, per_class_rows


def test_intervals_are_of_samples_in_which_both_classes_are():
    labels = torch.tensor([1, 1] + 18 * [0])
    probabilities = torch.stack([1 - labels * 0.8 - 0.1, labels * 0.8 + 0.1], 1)
    perfect = Evaluation("test", None, labels, torch.ones(20), probabilities, 0.5, [])
    intervals = bootstrap_intervals(perfect)
    for name in ("auroc", "average_precision", "sensitivity", "specificity", "accuracy", "kappa"):
        assert intervals[f"test/{name}"] == (1, 1), name


def test_intervals_are_of_every_metric_and_hold_its_value():
    torch.manual_seed(0)
    labels = torch.arange(300) % 5
    probabilities = (torch.randn(300, 5) + 2 * torch.eye(5)[labels]).softmax(1)
    evaluation = Evaluation("val", None, labels, torch.rand(300), probabilities, 0.5, [])
    intervals = bootstrap_intervals(evaluation)
    assert list(intervals) == list(evaluation.metrics_of(torch.arange(300)))
    for name, (low, high) in intervals.items():
        assert low < evaluation.metrics[name] < high, name
    error = (evaluation.metrics["val/accuracy"] * (1 - evaluation.metrics["val/accuracy"]) / 300) ** 0.5
    low, high = intervals["val/accuracy"]
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert bootstrap_intervals(evaluation) == intervals
    with pytest.raises(ValueError, match="resamples=0"):
        bootstrap_intervals(evaluation, resamples=0)


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_of_all_resamples_at_once_are_those_of_torchmetrics(classes):
    labels = torch.arange(60) % classes
    probabilities = (torch.randn(60, classes) + torch.eye(classes)[labels]).softmax(1)
    probabilities[:20] = probabilities[:20].round(decimals=1)  # so that scores are equal
    found = Evaluation("test", None, labels, torch.rand(60), probabilities, 0.5, [])
    for weights in resample(60, 20):
        values = weighted_metrics(weights, labels, found.predicted, probabilities, found.losses)
        areas = weighted_auroc(weights, probabilities, labels)
        for row, times in enumerate(weights):
            drawn = torch.arange(60).repeat_interleave(times.long())
            expected = found.metrics_of(drawn)
            assert {f"test/{name}" for name in values} == set(expected)
            for name, column in values.items():
                assert float(column[row]) == pytest.approx(float(expected[f"test/{name}"]), abs=1e-6), name
            if classes > 2:
                expected = many_class_metrics(probabilities[drawn], labels[drawn])["auroc"]
                assert float(areas[row]) == pytest.approx(float(expected), abs=1e-6)


def test_whole_groups_are_resampled_as_by_hand():
    groups = [f"patient {row // 6}" for row in range(120)] + [None] * 10
    right = torch.tensor([row // 6 % 3 > 0 for row in range(120)] + [True] * 10)  # all of a patient, or none
    labels = torch.arange(130) % 2
    predicted = torch.where(right, labels, 1 - labels)
    evaluation = Evaluation("test", None, labels, torch.ones(130), torch.eye(2)[predicted], 0.5, [], groups)

    random, shares = np.random.default_rng(0), []
    members = [np.arange(6 * patient, 6 * patient + 6) for patient in range(20)] + [
        np.array([120 + i]) for i in range(10)
    ]
    for _ in range(4000):
        rows = np.concatenate([members[unit] for unit in random.integers(30, size=30)])
        shares.append(right.numpy()[rows].mean())
    low, high = bootstrap_intervals(evaluation, resamples=4000)["test/accuracy"]
    assert (low, high) == pytest.approx(np.quantile(shares, [0.025, 0.975]), abs=0.015)
    alone = bootstrap_intervals(replace(evaluation, groups=None))["test/accuracy"]
    assert high - low > 1.5 * (alone[1] - alone[0])
    low, high = (PER_CLASS_COLUMNS.index(f"recall_{end}") for end in ("low", "high"))
    by_patient, by_image = (per_class_rows(replace(evaluation, groups=given), ["a", "b"]) for given in (groups, None))
    assert by_patient[0][high] - by_patient[0][low] > 1.5 * (by_image[0][high] - by_image[0][low])

import pytest
import torch

from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.intervals import bootstrap_intervals


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

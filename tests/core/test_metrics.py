import numpy as np
import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
    top_k_accuracy_score,
)

from imgclf.core.metrics import EpochMetrics, classification_metrics, decide, many_class_metrics, youden_threshold
from imgclf.core.names import BINARY_METRICS, METRIC_TABLE, METRICS, OBJECTIVES, Metric
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.intervals import bootstrap_intervals


@pytest.mark.parametrize("classes", [2, 5, 10])
@pytest.mark.parametrize("chunks", [1, 3, 7])
@pytest.mark.parametrize("used", [1.0, 0.6])  # of the classes: the rest never occurs
def test_against_scikit_learn(classes, chunks, used):
    random = np.random.default_rng(classes)
    top = max(2, int(classes * used))
    labels = random.integers(0, top, 201)
    probabilities = random.dirichlet(np.ones(classes), 201)
    probabilities[np.arange(201), labels] += 0.3 * (random.random(201) < 0.6)
    probabilities[:, top:] = 0
    probabilities /= probabilities.sum(1, keepdims=True)
    predicted = probabilities.argmax(1)
    losses = -np.log(probabilities[np.arange(201), labels])

    metrics = EpochMetrics("val", classes)
    for part in np.array_split(np.arange(201), chunks):
        metrics.update(*(torch.from_numpy(values[part]) for values in (losses, probabilities, labels)))
    values = {name: float(value) for name, value in metrics.compute().items()}

    options = {"average": "macro", "zero_division": 0}
    expected = {
        "val/loss": log_loss(labels, probabilities, labels=range(classes)),
        "val/accuracy": accuracy_score(labels, predicted),
        "val/precision": precision_score(labels, predicted, **options),
        "val/recall": recall_score(labels, predicted, **options),
        "val/f1": f1_score(labels, predicted, **options),
        "val/kappa": cohen_kappa_score(labels, predicted),
    }
    assert next(iter(values)) == "val/loss"
    if classes == 2:
        scores = probabilities[:, 1]
        confidence, right = probabilities.max(1), predicted == labels
        bins = np.digitize(confidence, np.linspace(0, 1, 16)[1:-1])
        gaps = [abs((right - confidence)[bins == k].sum()) / 201 for k in range(15)]
        expected |= {
            "val/auroc": roc_auc_score(labels, scores),
            "val/average_precision": average_precision_score(labels, scores),
            "val/sensitivity": recall_score(labels, predicted),
            "val/specificity": recall_score(1 - labels, 1 - predicted),
            "val/calibration_error": sum(gaps),
        }
    names = METRICS + (BINARY_METRICS if classes == 2 else ())
    assert set(values) == {f"val/{name}" for name in names} == set(expected)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-5), name


def one_hot(*classes: int) -> torch.Tensor:
    return torch.eye(2)[list(classes)]


def test_compute_starts_anew():
    metrics = EpochMetrics("train", 2)
    metrics.update(torch.tensor([1.0, 1.0, 1.0, 4.0]), one_hot(0, 0, 0, 0), torch.zeros(4).long())
    first = metrics.compute()
    assert float(first["train/loss"]) == pytest.approx(7 / 4)
    assert first["train/kappa"].isnan()  # one class only
    metrics.update(torch.tensor([2.0]), one_hot(1), torch.tensor([0]))
    second = metrics.compute()
    assert float(second["train/loss"]) == 2
    assert float(second["train/accuracy"]) == 0


def test_of_two_classes_the_threshold_decides():
    scores = torch.tensor([0.1, 0.3, 0.35, 0.8])
    probabilities, labels = torch.stack([1 - scores, scores], 1), torch.tensor([0, 0, 1, 1])
    assert decide(probabilities).tolist() == [0, 0, 0, 1]
    assert decide(probabilities, 0.3).tolist() == [0, 1, 1, 1]
    metrics = EpochMetrics("val", 2)
    for threshold, sensitivity, specificity in ((0.5, 0.5, 1), (0.33, 1, 1), (0.2, 1, 0.5)):
        metrics.update(torch.zeros(4), probabilities, labels)
        values = metrics.compute(threshold)
        assert float(values["val/sensitivity"]) == sensitivity
        assert float(values["val/specificity"]) == specificity
        assert float(values["val/accuracy"]) == (sensitivity + specificity) / 2
        assert float(values["val/auroc"]) == 1
    assert youden_threshold(scores, labels) == pytest.approx(0.325)


def test_youden_s_threshold_is_the_best_of_all():
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(0, 2, 100))
    scores = (labels * 0.4 + torch.from_numpy(random.random(100))) / 1.4

    def youden(threshold):
        return recall_score(labels, scores >= threshold) + recall_score(1 - labels, scores < threshold)

    best = max(youden(threshold) for threshold in scores)
    assert youden(youden_threshold(scores, labels)) == pytest.approx(best)
    assert youden_threshold(torch.full((4,), 0.7), torch.tensor([0, 1, 0, 1])) == 0.5


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (Metric("multiclass_matthews_corrcoef"), matthews_corrcoef),
        (Metric("multiclass_accuracy", {"average": "macro"}), balanced_accuracy_score),
    ],
)
def test_one_entry_adds_a_metric_everywhere(classes, entry, expected, monkeypatch):
    monkeypatch.setitem(METRIC_TABLE, "added", entry)
    labels = torch.arange(100) % classes
    probabilities = (torch.randn(100, classes) + torch.eye(classes)[labels]).softmax(1)
    metrics = EpochMetrics("val", classes)
    metrics.update(torch.ones(100), probabilities, labels)
    evaluation = Evaluation("val", None, labels, torch.ones(100), probabilities, 0.5, [])
    value = expected(labels, decide(probabilities))
    assert float(metrics.compute()["val/added"]) == pytest.approx(value, rel=1e-5)
    assert evaluation.metrics["val/added"] == pytest.approx(value, rel=1e-5)
    low, high = bootstrap_intervals(evaluation, resamples=200)["val/added"]
    assert low < value < high


def test_names_follow_from_the_table():
    assert ("loss", *METRIC_TABLE) == METRICS + BINARY_METRICS
    assert tuple(f"val/{name}" for name in METRICS + BINARY_METRICS) == OBJECTIVES


@pytest.mark.parametrize("classes", [2, 3])
def test_a_single_class_has_no_kappa_and_classes_that_never_occur_do_not_count(classes):
    everything = torch.ones(5, dtype=torch.long)
    values = classification_metrics(everything, everything, classes, torch.ones(5))
    assert values["kappa"].isnan()
    for name in ("accuracy", "precision", "recall", "f1"):
        assert float(values[name]) == 1, name
    values = classification_metrics(everything, 1 - everything, classes, torch.ones(5))
    for name in ("accuracy", "precision", "recall", "f1", "kappa"):
        assert float(values[name]) == 0, name  # 0/0 counts 0


def test_the_confusion_matrix_is_of_the_last_epoch():
    metrics = EpochMetrics("val", 3)
    assert metrics.confusion_matrix is None
    for labels in ([0, 1, 2, 2], [2, 2]):
        probabilities = torch.eye(3)[[0, 0, 2, 1][: len(labels)]]
        metrics.update(torch.ones(len(labels)), probabilities, torch.tensor(labels))
        metrics.compute()
    assert metrics.confusion_matrix.tolist() == [[0, 0, 0], [0, 0, 0], [2, 0, 0]]
    assert metrics.last_scores_and_labels is None


@pytest.mark.parametrize("present", [0, 1])
@pytest.mark.filterwarnings("error")
def test_what_needs_a_class_that_has_no_images_is_undefined(present):
    labels, scores = torch.full((6,), present), torch.rand(6)
    values = classification_metrics((scores > 0.5).long(), labels, 2, scores)
    undefined = {name for name, value in values.items() if value.isnan()}
    assert undefined - {"kappa"} == {"auroc"} | ({"specificity"} if present else {"average_precision", "sensitivity"})
    probabilities = torch.rand(6, 3).softmax(1)
    assert many_class_metrics(probabilities, labels)["auroc"].isnan()
    assert youden_threshold(scores, labels) == 0.5


@pytest.mark.parametrize("classes", [3, 25])
def test_metrics_of_many_classes_are_those_of_scikit_learn(classes):
    labels = torch.arange(200) % classes
    probabilities = (torch.randn(200, classes) + 2 * torch.eye(classes)[labels]).softmax(1)
    values = many_class_metrics(probabilities, labels)
    area = roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    confidence, predicted = probabilities.max(1)
    bins = (confidence * 15).ceil()
    gaps = [(confidence - (predicted == labels).float())[bins == k].sum().abs() / 200 for k in range(1, 16)]
    expected = {"auroc": area, "calibration_error": float(sum(gaps))}
    if classes == 25:
        expected["top5_accuracy"] = top_k_accuracy_score(labels, probabilities, k=5)
    assert {name: float(value) for name, value in values.items()} == pytest.approx(expected, abs=1e-5)
    fewer = many_class_metrics(probabilities[labels != 1], labels[labels != 1])["auroc"]  # a class without images
    others = [label for label in range(classes) if label != 1]
    areas = [roc_auc_score(labels[labels != 1] == label, probabilities[labels != 1, label]) for label in others]
    assert float(fewer) == pytest.approx(np.mean(areas), abs=1e-6)

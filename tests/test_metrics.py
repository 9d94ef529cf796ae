import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, log_loss, precision_score, recall_score

from imgclf.metrics import METRICS, StageMetrics


@pytest.mark.parametrize("classes", [2, 5, 10])
@pytest.mark.parametrize("chunks", [1, 3, 7])
@pytest.mark.parametrize("used", [1.0, 0.6])  # of the classes: the rest never occurs
def test_against_scikit_learn(classes, chunks, used):
    random = np.random.default_rng(classes)
    top = max(2, int(classes * used))
    labels = random.integers(0, top, 201)
    predicted = np.where(random.random(201) < 0.6, labels, random.integers(0, top, 201))
    probabilities = random.dirichlet(np.ones(classes), 201)
    losses = -np.log(probabilities[np.arange(201), labels])

    metrics = StageMetrics("val", classes)
    for part in np.array_split(np.arange(201), chunks):
        metrics.update(*(torch.from_numpy(values[part]) for values in (losses, predicted, labels)))
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
    assert set(values) == {f"val/{name}" for name in METRICS} == set(expected)
    for name, value in expected.items():
        assert values[name] == pytest.approx(value, rel=1e-5), name


def test_compute_starts_anew():
    metrics = StageMetrics("train", 2)
    metrics.update(torch.tensor([1.0, 1.0, 1.0, 4.0]), torch.zeros(4).long(), torch.zeros(4).long())
    first = metrics.compute()
    assert float(first["train/loss"]) == pytest.approx(7 / 4)
    assert float(first["train/kappa"]) == 0  # one class only: agreement by chance
    metrics.update(torch.tensor([2.0]), torch.tensor([1]), torch.tensor([0]))
    second = metrics.compute()
    assert float(second["train/loss"]) == 2
    assert float(second["train/accuracy"]) == 0

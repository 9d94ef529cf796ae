import csv

import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from imgclf.core.files import write_csv
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.tables import PER_CLASS_COLUMNS, confusion_rows, per_class_rows

NAMES = ["a", "b, c", "d"]


def evaluation(labels, probabilities) -> Evaluation:
    return Evaluation("test", None, labels, torch.ones(len(labels)), probabilities, 0.5, [])


def test_every_class_has_its_figures_and_intervals(tmp_path):
    labels = torch.arange(300) % 3
    found = evaluation(labels, (torch.randn(300, 3) + torch.eye(3)[labels]).softmax(1))
    expected = precision_recall_fscore_support(labels, found.predicted)
    with write_csv(tmp_path / "t.csv", PER_CLASS_COLUMNS, per_class_rows(found, NAMES)).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["class"], row["images"]) for row in rows] == [("test", name, "100") for name in NAMES]
    for name, values in zip(("precision", "recall", "f1"), expected, strict=False):
        for row, value in zip(rows, values, strict=True):
            assert float(row[name]) == pytest.approx(value)
            assert float(row[f"{name}_low"]) < value < float(row[f"{name}_high"])
    share = expected[1][0]
    width = float(rows[0]["recall_high"]) - float(rows[0]["recall_low"])
    assert width / 2 == pytest.approx(1.96 * (share * (1 - share) / 100) ** 0.5, rel=0.15)
    counts = confusion_matrix(labels, found.predicted).tolist()
    assert confusion_rows(found, NAMES) == [[name, *row] for name, row in zip(NAMES, counts, strict=True)]


def test_what_a_class_without_images_lacks_stays_empty(tmp_path):
    found = evaluation(torch.tensor([0, 0, 1]), torch.eye(3)[[0, 0, 1]])
    with write_csv(tmp_path / "t.csv", PER_CLASS_COLUMNS, per_class_rows(found, NAMES)).open() as file:
        rows = list(csv.DictReader(file))
    assert [rows[0][name] for name in ("precision", "recall", "f1")] == ["1.0"] * 3
    assert set(list(rows[2].values())[3:]) == {""}

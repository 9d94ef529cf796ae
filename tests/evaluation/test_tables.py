import csv

import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from imgclf.core.files import write_csv
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.report import print_worst_classes
from imgclf.evaluation.tables import PER_CLASS_COLUMNS, confusion_rows, per_class_rows
from imgclf.runs.run_dir import RunDir

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


def test_the_five_worst_of_many_classes_are_printed(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")

    def printed(classes, wrong) -> list[list[str]]:
        """The rows of the terminal, if all ten images of each class are right but those that are wrong."""
        labels = torch.arange(classes).repeat_interleave(10)
        answers = labels.clone()
        for label, count in wrong.items():
            answers[10 * label : 10 * label + count] = 0
        names = [f"[{number}]" for number in range(classes)]
        with RunDir(tmp_path / f"{classes}-{len(wrong)}") as run_dir:
            rows = per_class_rows(evaluation(labels, torch.eye(classes)[answers]), names)
            run_dir.write_csv("per_class.csv", PER_CLASS_COLUMNS, rows)
            print_worst_classes(run_dir, "test")
        out = capfd.readouterr().out
        assert max(map(len, out.splitlines()), default=0) <= 80
        return [line.split() for line in out.splitlines() if line.startswith("[")]

    rows = printed(8, {1: 4, 2: 3, 3: 2, 4: 1, 5: 5})  # 15 of the 25 answers [0] are wrong
    assert rows[0] == ["[0]", "10", "0.4000", "1.0000", "0.5714"]
    assert rows[1] == ["[5]", "10", "1.0000", "0.5000", "0.6667"]
    assert [row[0] for row in rows] == ["[0]", "[5]", "[1]", "[2]", "[3]"]
    assert printed(5, {1: 4}) == printed(8, {}) == []  # five classes are read in per_class.csv

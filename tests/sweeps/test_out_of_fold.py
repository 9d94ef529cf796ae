import json

import pytest
import torch

from imgclf.core.files import read_csv
from imgclf.data.digits import Digits
from imgclf.evaluation.predictions import PREDICTION_COLUMNS
from tests.conftest import SMALL
from tests.evaluation.page import Page

FOLDS = ("-m", "data.folds=3", "data.fold=0,1,2", "hydra.sweep.dir=sweep")


def test_every_training_image_is_predicted_once_by_a_network_that_did_not_see_it(train, tmp_path):
    result = train(*SMALL, *FOLDS, "seed=1,2").ok()
    folder = tmp_path / "sweep"
    table = read_csv(folder / "oof_predictions.csv")
    assert list(table[0])[: len(PREDICTION_COLUMNS)] == PREDICTION_COLUMNS
    assert [row["file"] for row in table] == [str(number) for number in range(200)]  # all of MNIST's training part
    assert [int(row["label"]) for row in table] == [number % 10 for number in range(200)]
    metrics = json.loads((folder / "oof_metrics.json").read_text())
    right = [row["label"] == row["predicted"] for row in table]
    assert metrics["oof/accuracy"] == pytest.approx(sum(right) / 200)
    assert {"oof/loss", "oof/auroc", "oof/f1"} <= metrics.keys()
    assert "out of fold (200 images)" in result.out
    assert (folder / "label_issues.csv").exists()
    assert (folder / "label_issues.png").exists()
    page = Page((folder / "report.html").read_text())
    assert f"accuracy{metrics['oof/accuracy']:.4f}" in "".join(page.text.partition("Out of fold")[2].split())
    assert len(page.images()) == 2  # the summary and the doubted labels
    summary = read_csv(folder / "summary.csv")
    assert {(row["rank"], row["n"]) for row in summary} == {("1", "6")}  # folds are averaged over, as seeds are
    before = {path: path.read_bytes() for path in folder.glob("*.csv")}
    train(*SMALL, *FOLDS, "seed=1,2", "resume=true").ok()
    for name in ("oof_predictions.csv", "label_issues.csv"):
        assert (folder / name).read_bytes() == before[folder / name]


def test_the_loss_is_the_mean_over_the_folds_of_what_each_job_has(train, tmp_path):
    train(*SMALL, *FOLDS).ok()
    jobs = [json.loads((tmp_path / "sweep" / str(fold) / "metrics.json").read_text()) for fold in range(3)]
    metrics = json.loads((tmp_path / "sweep" / "oof_metrics.json").read_text())
    mean = sum(job["val/loss"] * size for job, size in zip(jobs, (67, 67, 66), strict=True)) / 200
    assert metrics["oof/loss"] == pytest.approx(mean, rel=2e-3)


def test_folders_are_divided_by_patient_and_resumed_after_a_power_cut(train, power_cut, tmp_path):
    folder = ("data=chest_xray", "data.image_size=16", "model=mlp", "model.hidden=[8]", "trainer.max_epochs=2", *FOLDS)
    with power_cut(1):
        assert "3 of 3 jobs failed" in train(*folder).err
    assert not (tmp_path / "sweep" / "oof_predictions.csv").exists()
    train(*folder, "resume=true").ok()
    table = read_csv(tmp_path / "sweep" / "oof_predictions.csv")
    assert len(table) == len({row["file"] for row in table}) == 80
    assert "test/accuracy" in read_csv(tmp_path / "sweep" / "summary.csv")[0]


def test_missing_folds_are_named(train, tmp_path):
    result = train(*SMALL, "-m", "data.folds=4", "data.fold=0,2", "hydra.sweep.dir=sweep").ok()
    assert "no out-of-fold predictions: of 4 folds (from 0), 1, 3 did not run" in result.out
    assert not (tmp_path / "sweep" / "oof_predictions.csv").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["data.folds=1", "data.fold=0"], "data.folds=1: give a whole number from 2 up"),
        (["data.folds=5", "data.fold=5"], "data.fold=5: give a whole number from 0 to 4"),
        (["data.fold=2"], "data.fold=2: say of how many, as in data.folds=5"),
        (["data.folds=2"], "data.folds=2: say which one is for validation, from data.fold=0 to data.fold=1"),
        (["data.folds=21", "data.fold=0"], "data.folds=21: a class has only 20 images; give at most 20"),
        (["data.folds=two", "data.fold=0"], "data.folds=two: give a whole number"),
    ],
)
def test_folds_that_cannot_be_are_refused_in_one_line(given, said, train):
    assert said in train(*SMALL, *given, "hydra.run.dir=run").error


def test_exchanged_labels_are_among_the_suspicious_ones(train, monkeypatch, tmp_path):
    load, count, images = Digits.load, 43, 1437  # 3% of the training images
    exchanged = torch.randperm(images, generator=torch.Generator().manual_seed(0))[:count]

    def with_mistakes(self, split):
        pixels, labels = load(self, split)
        if split == "train":
            labels[exchanged] = (labels[exchanged] + 1 + torch.arange(count) % 9) % 10
        return pixels, labels

    monkeypatch.setattr(Digits, "load", with_mistakes)
    small = ("data=digits", "model=mlp", "model.hidden=[64]", "trainer.max_epochs=8", "evaluate_on=[val]")
    train(*small, "data.batch_size=32", *FOLDS).ok()
    table = read_csv(tmp_path / "sweep" / "label_issues.csv")
    wrong = {str(row) for row in exchanged.tolist()}
    found = [row["file"] in wrong for row in table]
    print(f"{sum(found)} of {count} exchanged labels found, {sum(found)} of {len(found)} suspects are right")
    assert sum(found) >= 0.7 * count
    assert sum(found) >= 0.8 * len(found)
    assert all(found[:20])  # the most suspicious first
    margins = [float(row["margin"]) for row in table]
    assert margins == sorted(margins, reverse=True)

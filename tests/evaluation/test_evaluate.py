import csv
import json

import numpy as np
import pytest
import torch

from imgclf import load
from imgclf.data.noisy import NoisyImages
from tests.evaluation.conftest import metrics

COLUMNS_IN_CONTRACT = "file,label,label_name,predicted,class_name,probability"


@pytest.mark.draws
def test_evaluation_repeats_the_run_s_metrics_and_follows_other_variations(run, script, tmp_path):
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, "hydra.run.dir=same", "accelerator=cpu")
    assert result.code == 0, result.err
    assert metrics(tmp_path / "same") == metrics(run)
    assert script("evaluate.py", ckpt, "split=val", "hydra.run.dir=val").code == 0
    assert metrics(tmp_path / "val", "val") == metrics(run, "val")

    assert script("evaluate.py", ckpt, "data.variation=basic", "hydra.run.dir=other").code == 0
    named = ("data=noisy_digits", "data.variation=basic")
    assert script("evaluate.py", ckpt, *named, "data.eval_batch_size=7", "hydra.run.dir=named").code == 0
    assert metrics(tmp_path / "other") != metrics(run)
    other, again = metrics(tmp_path / "other"), metrics(tmp_path / "named")
    assert other == pytest.approx(again, rel=1e-6)  # batches of 7 sum in another order

    with (tmp_path / "other" / "predictions.csv").open() as file:
        table = csv.DictReader(file)
        shares = [f"p({digit})" for digit in range(10)]
        assert table.fieldnames == [*COLUMNS_IN_CONTRACT.split(","), *shares]
        rows = list(table)
    images, labels = NoisyImages(base="digits", variation="basic").eval_dataset("test")[:]
    assert [int(row["file"]) for row in rows] == list(range(360))
    assert [int(row["label"]) for row in rows] == labels.tolist()
    assert [row["label_name"] for row in rows] == [str(label) for label in labels.tolist()]
    assert all(row[f"p({row['class_name']})"] == row["probability"] for row in rows)
    assert sum(float(rows[0][name]) for name in shares) == pytest.approx(1, abs=1e-5)
    correct = [row["label"] == row["predicted"] for row in rows]
    assert float(np.mean(correct)) == pytest.approx(other["test/accuracy"])
    answers = load(run / "checkpoints" / "best.ckpt").predict(images)
    assert [int(row["predicted"]) for row in rows] == [answer.predicted for answer in answers]
    assert [row["class_name"] for row in rows] == [answer.class_name for answer in answers]
    torch.testing.assert_close(
        torch.tensor([float(row["probability"]) for row in rows]),
        torch.tensor([answer.probability for answer in answers]),
        atol=1e-5,
        rtol=0,
    )
    assert "variation: basic" in (tmp_path / "other" / "config.yaml").read_text()
    assert json.loads((tmp_path / "other" / "environment.json").read_text())["device"] == "cpu"
    for name in ("confusion_matrix", "mistakes", "samples"):
        assert (tmp_path / "other" / "figures" / f"{name}.png").stat().st_size > 5000


def test_several_variations_in_one_command(run, script, tmp_path):
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    result = script("evaluate.py", "-m", ckpt, "data.variation=basic,rot", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    assert metrics(tmp_path / "sweep" / "1") == metrics(run)


def test_an_ensemble_and_several_views(run, script, tmp_path):
    best, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    views = ("tta=3", "augmentation.affine.translate=0.1")
    result = script("evaluate.py", f"ckpt=[{best},{last}]", *views, "split=val", "hydra.run.dir=several")
    assert result.code == 0, result.err
    alone, together = metrics(run, "val"), metrics(tmp_path / "several", "val")
    assert set(together) == set(alone)
    assert together["val/loss"] != alone["val/loss"]
    assert script("evaluate.py", f"ckpt=[{best},{last}]", "hydra.run.dir=same").code == 0
    assert metrics(tmp_path / "same") == pytest.approx(metrics(run))  # one epoch: both are the same

    other = torch.load(best, weights_only=True)
    other["imgclf"]["data"]["split_seed"] = 7
    torch.save(other, tmp_path / "other.ckpt")
    both = f"ckpt=[{best},{tmp_path}/other.ckpt]"
    assert "split=val: " in script("evaluate.py", both, "split=val").error
    assert "${seed}: no such file" in script("evaluate.py", "ckpt=[${seed}]").error
    for wrong in ("[]", "null"):
        assert "name a checkpoint" in script("evaluate.py", f"ckpt={wrong}").error
    for wrong in ("{a: 1}", f"[{best},3]"):
        assert "no such file" in script("evaluate.py", f"ckpt={wrong}").error


def test_bad_input(run, script, tiny_data, tmp_path):
    best = run / "checkpoints" / "best.ckpt"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    (tmp_path / "short.ckpt").write_bytes(best.read_bytes()[:5000])
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "foreign.ckpt")
    for arguments, parts in (
        (["ckpt=none.ckpt"], ["none.ckpt", "no such file"]),
        ([f"ckpt={tmp_path}/short.ckpt"], ["short.ckpt", "truncated"]),
        ([f"ckpt={tmp_path}/foreign.ckpt"], ["foreign.ckpt", "not a checkpoint of imgclf"]),
        ([], ["ckpt=PATH is missing"]),
        ([f"ckpt={run}"], ["a folder", "checkpoints/best.ckpt"]),
        ([f"ckpt={best}", "images=pictures/[ab]*.png"], ["images=pictures/[ab]*.png: no image"]),
        ([f"ckpt={best}", "data=digits", "data.variation=rot"], ["data=noisy_digits"]),
        ([f"ckpt={best}", "split=tset"], ["split=tset", "train, val, test"]),
        ([f"ckpt={best}", "data=emnist", f"data_dir={tiny_data}"], ["47 classes", "10"]),
        ([f"ckpt={best}", "data.variation=upside-down"], ["upside-down", "back-image"]),
        ([f"ckpt={best}", "data.variant=rot"], ["data.variant", "did you mean data.variation"]),
        ([f"ckpt={best}", "data=nothing"], ["data=nothing", "noisy_mnist"]),
        ([f"ckpt={best}", "accelerator=gpu"], ["accelerator=gpu", "accelerator=cpu"]),
        ([f"ckpt={best}", f"hydra.run.dir={run}"], ["is not empty"]),
    ):
        line = script("evaluate.py", *arguments).error
        for part in parts:
            assert part in line
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_data_of_another_shape(run, script, monkeypatch):
    from imgclf.data.digits import Digits

    load = Digits.load

    def larger(self, split):
        images, labels = load(self, split)
        return images.repeat(1, 1, 2, 2), labels

    monkeypatch.setattr(Digits, "load", larger)
    line = script("evaluate.py", f"ckpt={run}/checkpoints/best.ckpt", "data=digits").error
    assert "(1, 56, 56)" in line
    assert "(1, 28, 28)" in line

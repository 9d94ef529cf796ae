"""Runs that are continued: after a stop, for more epochs or patience, and without typing their options again."""

import re
import shlex

import pytest
import torch

from imgclf.core.files import read_csv
from tests.commands.test_train import metrics, weights
from tests.conftest import SMALL


@pytest.mark.parametrize("scheduler", ["none", "onecycle"])
def test_a_run_stopped_after_two_of_four_epochs_resumes_to_the_same_end(scheduler, train, power_cut, tmp_path):
    recipe = (
        *("data=noisy_digits", "data.variation=rot-back-rand", "model=cnn", "augmentation=affine"),
        *("augmentation.elastic.magnitude=0.03", "augmentation.mixup.p=0.3", "augmentation.cutmix.p=0.3"),
        *(f"scheduler={scheduler}", "trainer.max_epochs=4"),
    )
    train(*recipe, "hydra.run.dir=whole").ok()

    with power_cut(2):
        assert "power cut" in train(*recipe, "hydra.run.dir=cut").error
    cut = tmp_path / "cut"
    assert not (cut / "metrics.json").exists()
    before, log = (cut / "checkpoints" / "last.ckpt").read_bytes(), (cut / "train.log").read_bytes()
    assert b"power cut" in log

    assert "add resume=true" in train(*recipe, "hydra.run.dir=cut").error
    assert (
        "optimizer.lr was 0.001, is 0.01"
        in train(*recipe, "hydra.run.dir=cut", "resume=true", "optimizer.lr=0.01").error
    )
    assert (cut / "checkpoints" / "last.ckpt").read_bytes() == before
    assert (cut / "train.log").read_bytes() == log

    cut = cut.rename(tmp_path / "moved")
    train(*recipe, "hydra.run.dir=moved", "resume=true").ok()
    assert metrics(cut) == metrics(tmp_path / "whole")
    for name in ("best", "last"):
        first, second = (weights(tmp_path / folder / "checkpoints" / f"{name}.ckpt") for folder in ("whole", "moved"))
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert [int(row["epoch"]) for row in read_csv(cut / "metrics.csv")] == [1, 2, 3, 4]

    (cut / "metrics.json").unlink()  # as if killed after the last epoch
    train(*recipe, "hydra.run.dir=moved", "resume=true").ok()
    assert metrics(cut) == metrics(tmp_path / "whole")

    finished = (cut / "metrics.json").read_bytes()
    again = train(*recipe, "hydra.run.dir=moved", "resume=true").ok()
    assert "best.ckpt" in again.out
    assert (cut / "metrics.json").read_bytes() == finished


def test_resume_starts_a_folder_without_a_checkpoint_and_lengthens_a_finished_run(train, tmp_path):
    train(*SMALL, "hydra.run.dir=run", "resume=true").ok()
    train(*SMALL, "hydra.run.dir=run", "resume=true", "trainer.max_epochs=3").ok()
    train(*SMALL, "hydra.run.dir=whole", "trainer.max_epochs=3").ok()
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_early_stopping_and_a_resumed_run_that_had_stopped(train, tmp_path):
    recipe = (
        *(*SMALL, "callbacks=early_stopping", "callbacks.early_stopping.patience=1"),
        *("optimizer.lr=0", "trainer.max_epochs=9", "hydra.run.dir=run"),
    )
    train(*recipe).ok()
    first = metrics(tmp_path / "run")
    assert first["epochs"] == 2
    (tmp_path / "run" / "metrics.json").unlink()  # as if killed before it was written
    train(*recipe, "resume=true").ok()
    assert metrics(tmp_path / "run") == first


def test_a_finished_run_is_no_answer_to_other_options(train, tmp_path):
    train(*SMALL, "evaluate_on=[val]", "hydra.run.dir=run").ok()
    assert (
        "model.hidden was [16], is [32]" in train(*SMALL, "hydra.run.dir=run", "resume=true", "model.hidden=[32]").error
    )
    train(*SMALL, "evaluate_on=[val,test]", "hydra.run.dir=run", "resume=true").ok()
    assert "test/accuracy" in metrics(tmp_path / "run")


def test_early_stopping_goes_on_with_more_patience(train, tmp_path):
    stopping = ("callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=0")
    train(*SMALL, *stopping, "trainer.max_epochs=9", "hydra.run.dir=run").ok()
    assert metrics(tmp_path / "run")["epochs"] == 2
    train("hydra.run.dir=run", "resume=true", "callbacks.early_stopping.patience=3", "trainer.max_epochs=9").ok()
    assert metrics(tmp_path / "run")["epochs"] == 4


def test_a_lengthened_run_that_was_stopped_again_needs_only_its_folder(train, power_cut, tmp_path):
    run = "hydra.run.dir=run"
    train(*SMALL, run).ok()
    with power_cut(2):
        assert "power cut" in train(run, "resume=true", "trainer.max_epochs=4").error
    line = train(run, "resume=true", "trainer.max_epochs=1").error
    assert "trainer.max_epochs=1: " in line
    assert "is of epoch 2 already" in line
    train(run, "resume=true", "trainer.max_epochs=4").ok()
    assert metrics(tmp_path / "run")["epochs"] == 4


def test_a_job_of_a_sweep_is_continued_by_its_folder(train, tmp_path):
    with_options = (*SMALL, "optimizer.lr=0.01,0.02", "hydra.sweep.dir=sweep")
    train("-m", *with_options).ok()
    train("hydra.run.dir=sweep/1", "resume=true", "trainer.max_epochs=2").ok()
    assert metrics(tmp_path / "sweep" / "1")["epochs"] == 2


def test_the_commands_that_a_run_prints_can_be_pasted(train, script, tmp_path):
    result = train(*SMALL, "evaluate_on=[train,val]", "hydra.run.dir=it's a (run), #1=数", "logger=null").ok()
    end = result.out.rpartition("images per second at best")[2]
    printed = dict(re.findall(r"^ *(\w+):  (.*)$", end, re.MULTILINE))
    assert printed.pop("report").endswith("report.html")
    assert printed.keys() == {"evaluate", "predict", "resume"}  # nothing is there for a dashboard
    for purpose, command in printed.items():
        python, file, *words = shlex.split(command)
        assert python == "python"
        if purpose != "predict":
            script(file, *words).ok()

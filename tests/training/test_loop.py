"""Our loop over batches and Lightning's own train the same weights; what is not plain is left to Lightning's."""

import pytest
import torch
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from imgclf.core.files import read_csv
from imgclf.training.loop import EpochLoop
from tests.conftest import SMALL

STEPS = 4  # of an epoch of SMALL
NOISY = ("data=noisy_mnist", *SMALL[1:], "data.variation=rot-back-rand", "model.dropout=0.3")
XRAYS = ("data=chest_xray", "data.image_size=32", "model=mlp", "model.hidden=[8]")


def left_behind(run):
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in read_csv(run / "metrics.csv")]
    return checkpoint, rows


@pytest.mark.parametrize(
    "recipe",
    [
        SMALL,
        (*NOISY, "callbacks=ema", "optimizer=sgd", "scheduler=onecycle", "trainer.precision=bf16-mixed"),
        (*XRAYS, "classifier.threshold=validation", "scheduler=cosine", "augmentation=photo", "data.balance=sampler"),
        (*SMALL, "augmentation.mixup.p=0.5", "augmentation.affine.translate=0.1", "data.num_workers=1"),
    ],
    ids=("plain", "average", "two classes", "mixed"),
)
def test_the_numbers_are_those_of_lightnings_own_loop(recipe, train, tmp_path, monkeypatch):
    train(*recipe, "trainer.max_epochs=3", "hydra.run.dir=ours").ok()
    monkeypatch.setattr(EpochLoop, "advance", _TrainingEpochLoop.advance)
    train(*recipe, "trainer.max_epochs=3", "hydra.run.dir=lightnings").ok()
    (ours, rows), (theirs, their_rows) = left_behind(tmp_path / "ours"), left_behind(tmp_path / "lightnings")
    assert rows == their_rows
    assert len(rows) == 3
    for name, tensor in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], tensor)
    for part in ("loops", "lr_schedulers", "global_step", "epoch"):
        assert ours[part] == theirs[part]
    steps = [state["step"] for state in ours["optimizer_states"][0]["state"].values() if "step" in state]
    assert all(step == ours["global_step"] for step in steps)


@pytest.mark.parametrize(
    ("option", "lightnings"),
    [
        ("trainer.log_every_n_steps=1", 0),
        ("trainer.accumulate_grad_batches=2", STEPS),
        ("trainer.gradient_clip_val=1", STEPS),
        ("trainer.profiler=simple", STEPS),
    ],
)
def test_what_is_not_plain_is_left_to_lightning(option, lightnings, train, monkeypatch):
    calls, advance = [], _TrainingEpochLoop.advance
    monkeypatch.setattr(_TrainingEpochLoop, "advance", lambda *given: calls.append(0) or advance(*given))
    train(*SMALL, option).ok()
    assert len(calls) == lightnings


@pytest.mark.parametrize("change", ["version", "attribute"])
def test_another_lightning_trains_the_same_weights_by_its_own_loop(change, train, tmp_path, monkeypatch):
    train(*SMALL, "model.dropout=0.2", "hydra.run.dir=ours").ok()
    if change == "version":
        monkeypatch.setattr("lightning.__version__", "2.7.0")
    else:
        monkeypatch.setattr("imgclf.training.loop.NEEDED_OF_LOOP", ("gone",))
    monkeypatch.setattr(EpochLoop, "advance", lambda *given: pytest.fail("is used"))
    train(*SMALL, "model.dropout=0.2", "hydra.run.dir=lightnings").ok()
    (ours, rows), (theirs, their_rows) = left_behind(tmp_path / "ours"), left_behind(tmp_path / "lightnings")
    assert rows == their_rows
    for name, tensor in theirs["state_dict"].items():
        assert torch.equal(ours["state_dict"][name], tensor)


def test_hooks_within_a_step_are_called(train, monkeypatch):
    from imgclf.training.history import History

    calls = []
    monkeypatch.setattr(History, "on_before_optimizer_step", lambda *given: calls.append(0), raising=False)
    train(*SMALL).ok()
    assert len(calls) == STEPS

"""What callbacks leave behind: pictures in TensorBoard, averaged weights, the best of several epochs."""

import math

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imgclf.figures.classification import plot_confusion_matrix
from imgclf.training.callbacks import Checkpoints
from tests.conftest import SMALL

XRAYS = ("data=chest_xray", "data.image_size=32", "model=mlp", "model.hidden=[8]")


def board(run) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0}).Reload()


def test_the_dashboard_has_pictures_at_every_kth_epoch_and_at_the_end(train, tmp_path):
    given = ("trainer.max_epochs=5", "callbacks.dashboard.every_n_epochs=2", "callbacks.dashboard.weights=true")
    train(*XRAYS, *given, "hydra.run.dir=run").ok()
    events = board(tmp_path / "run")
    steps = {tag: [event.step for event in events.Images(tag)] for tag in events.Tags()["images"]}
    per_epoch = steps["curves"][-1] // 5
    assert steps["val/confusion_matrix"] == [2 * per_epoch - 1, 4 * per_epoch - 1]  # their last step, from 0
    assert steps["curves"] == [2 * per_epoch - 1, 4 * per_epoch - 1, 5 * per_epoch]
    assert {"confusion_matrix", "roc", "precision_recall", "samples"} <= steps.keys()
    plugins = {tag: data.plugin_data.plugin_name for tag, data in events.summary_metadata.items()}
    curves = {tag for tag, name in plugins.items() if name == "pr_curves"}
    assert curves == {"train/precision_recall", "val/precision_recall", "test/precision_recall"}
    assert len(events.Tensors("val/precision_recall")) == 3
    assert "weights/layers.1.weight" in events.Tags()["histograms"]


def test_what_validation_counted_is_kept(train, tmp_path, monkeypatch):
    drawn, draw = [], plot_confusion_matrix
    for module in ("imgclf.training.tensorboard", "imgclf.evaluation.report"):
        monkeypatch.setattr(
            f"{module}.plot_confusion_matrix", lambda counts, *rest: drawn.append(counts) or draw(counts, *rest)
        )
    given = ("evaluate_on=[val]", "callbacks.dashboard.every_n_epochs=1")
    train(*SMALL, *given, "hydra.run.dir=run").ok()
    during, after = drawn
    assert during.sum() == 20
    assert torch.equal(during, after)


def test_the_network_is_described_in_two_lines(train):
    network = ("model=torchvision", "model.name=resnet18")
    result = train("data=chest_xray", "data.image_size=32", *network, "hydra.run.dir=run")
    assert "network:  TorchvisionNetwork (freeze_epochs=0, name=resnet18)" in result.out, result.err
    # 11,689,512 of the original, with one channel instead of three and one logit instead of 1,000
    assert "weights:  11,170,753; " in result.out


def test_a_dashboard_of_no_epoch_is_refused(train):
    error = train(*SMALL, "callbacks.dashboard.every_n_epochs=0", "hydra.run.dir=run").error
    assert "every_n_epochs=0: give a whole number from 1 up" in error


@pytest.mark.parametrize(
    "option", ["decay=1", "decay=-0.1", "decay=true", "update_every_n_steps=0", "update_every_n_steps=1.5"]
)
def test_an_average_that_cannot_be_is_refused(option, train):
    name, _, value = option.partition("=")
    error = train(*SMALL, "callbacks=ema", f"++callbacks.ema.{name}={value}", "hydra.run.dir=run").error
    assert f"{name}={value.capitalize()}: give a" in error


def test_a_checkpoint_without_what_resuming_needs_is_refused(train):
    option = "+callbacks.last_checkpoint.save_weights_only=true"
    assert "save_weights_only=True: leave it out" in train(*SMALL, option, "hydra.run.dir=run").error


def test_averaged_weights_are_what_is_validated_and_kept_and_resumed(train, power_cut, tmp_path):
    recipe = (
        *XRAYS,
        "callbacks=ema",
        "callbacks.ema.decay=0.9",
        "classifier.threshold=validation",
        "trainer.max_epochs=4",
    )
    train(*recipe, "hydra.run.dir=whole").ok()
    with power_cut(2):
        train(*recipe, "hydra.run.dir=cut")
    train(*recipe, "hydra.run.dir=cut", "resume=true").ok()
    whole, cut = (
        torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("whole", "cut")
    )
    for state in ("state_dict", "current_model_state"):
        assert all(torch.equal(whole[state][name], cut[state][name]) for name in whole[state])
    averaged, current = whole["state_dict"], whole["current_model_state"]
    assert any(not torch.equal(averaged[name], current[name]) for name in averaged if name.endswith("weight"))
    assert torch.equal(averaged["threshold"], current["threshold"])
    refused = train(*recipe, "hydra.run.dir=cut", "resume=true", "callbacks.ema.decay=0.99", "trainer.max_epochs=5")
    assert "callbacks.ema.decay was 0.9, is 0.99" in refused.error


class Epoch:
    """What a trainer tells of an epoch."""

    is_global_zero = True

    def __init__(self, value, loss):
        self.callback_metrics = {"val/x": torch.tensor(value), "val/loss": torch.tensor(loss)}
        self.strategy = self
        self.reduce_boolean_decision = bool


@pytest.mark.parametrize(
    ("mode", "epochs", "best"),
    [
        ("max", [(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 1),  # ties go to the lower loss
        ("max", [(0.5, 1.0), (0.5, 1.0)], 1),  # and then to the later epoch
        ("max", [(0.5, 1.0), (0.4, 0.1)], 0),
        ("min", [(0.5, 1.0), (0.5, 0.9), (0.4, 2.0), (0.4, 2.1)], 2),
        ("max", [(math.nan, 0.1), (0.0, 1.0), (math.nan, 0.1)], 1),  # an undefined metric never wins
        ("min", [(math.nan, 0.1), (9.0, 1.0), (math.nan, 0.1)], 1),
        ("max", [(math.nan, 0.2), (math.nan, 0.1), (math.nan, 0.3)], 1),
    ],
)
@pytest.mark.parametrize("resumed", [False, True])  # after every epoch
def test_the_best_epoch(mode, epochs, best, resumed, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "_save_checkpoint", lambda self, trainer, path: None)

    def make():
        return Checkpoints(monitor="val/x", mode=mode, dirpath=tmp_path, filename="best", enable_version_counter=False)

    callback, kept = make(), []
    for number, (value, loss) in enumerate(epochs):
        trainer = Epoch(value, loss)
        candidates = {**trainer.callback_metrics, "epoch": torch.tensor(number), "step": torch.tensor(number)}
        if callback.check_monitor_top_k(trainer, candidates["val/x"]):
            callback._update_best_and_save(candidates["val/x"], trainer, candidates)
            kept.append(number)
        if resumed:
            state, callback = callback.state_dict(), make()
            callback.load_state_dict(state)
    assert kept[-1] == best

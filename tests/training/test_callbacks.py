"""What callbacks leave behind: pictures in TensorBoard, averaged weights."""

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imgclf.figures.classification import plot_confusion_matrix
from tests.conftest import SMALL

XRAYS = ("data=chest_xray", "data.image_size=32", "model=mlp", "model.hidden=[8]")


def board(run) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "tensors": 0}).Reload()


def test_the_dashboard_has_pictures_at_every_kth_epoch_and_at_the_end(train, tmp_path):
    given = ("trainer.max_epochs=5", "callbacks.dashboard.every_n_epochs=2", "callbacks.dashboard.weights=true")
    result = train(*XRAYS, *given, "hydra.run.dir=run")
    assert result.code == 0, result.err
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
    assert train(*SMALL, *given, "hydra.run.dir=run").code == 0
    during, after = drawn
    assert during.sum() == 20
    assert torch.equal(during, after)


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
    assert train(*recipe, "hydra.run.dir=whole").code == 0
    with power_cut(2):
        train(*recipe, "hydra.run.dir=cut")
    assert train(*recipe, "hydra.run.dir=cut", "resume=true").code == 0
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

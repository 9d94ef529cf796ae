import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, roc_auc_score
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from imgclf.core.metrics import youden_threshold
from imgclf.data.digits import Digits
from imgclf.models.classifier import Classifier
from imgclf.models.mlp import MLP
from tests.conftest import SMALL


def fit(classifier: Classifier, epochs: int = 1, data: pl.LightningDataModule | None = None, **options) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(classifier, datamodule=data or Digits(batch_size=100))
    return trainer


def classifier(**options) -> Classifier:
    return Classifier(MLP(hidden=[16]), Digits.class_names, [0.1], [0.3], **options)


def test_normalisation_is_inside_and_takes_bytes_and_floats():
    model = classifier().eval()
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    expected = model.network((images.float() / 255 - 0.1) / 0.3)
    torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(model(images.float() / 255), expected)


def test_a_notebook_needs_no_hydra_and_the_metrics_are_scikit_learns():
    model = classifier()
    trainer = fit(model, 3)
    data = Digits()
    images, labels = data.dataset("val")[:]
    logits = model(images).detach()
    predicted = logits.argmax(1)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["val/loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)
    assert logged["val/accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert logged["val/f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert logged["val/kappa"] == pytest.approx(cohen_kappa_score(labels, predicted))
    assert logged["train/accuracy"] > 0.5
    tested = trainer.test(model, datamodule=data, verbose=False)[0]
    assert tested["test/accuracy"] > 0.5


@pytest.mark.parametrize(
    ("factory", "interval", "final"),
    [
        (partial(OneCycleLR, max_lr=0.1, total_steps=None), "step", 0.1 / 25 / 1e4),
        (partial(CosineAnnealingLR, T_max=None), "step", 0.1 * (1 + math.cos(math.pi * 25 / 26)) / 2),
        (partial(CosineAnnealingLR), "epoch", 0.1 * (1 + math.cos(math.pi / 2)) / 2),
    ],
)
def test_schedules_get_the_length_of_the_run(factory, interval, final):
    model = classifier(optimizer=partial(SGD, lr=0.1), scheduler=factory, scheduler_interval=interval)
    trainer = fit(model, 2)
    assert trainer.global_step == 2 * 13
    assert float(trainer.callback_metrics["lr"]) == pytest.approx(final, rel=1e-5)  # of the last step


def test_a_plateau_schedule_watches_its_metric():
    model = classifier(
        optimizer=partial(SGD, lr=0.1, maximize=True),  # nothing improves
        scheduler=partial(ReduceLROnPlateau, patience=0, factor=0.5, mode="max"),
        scheduler_interval="epoch",
        scheduler_monitor="val/accuracy",
    )
    trainer = fit(model, 3)
    assert trainer.lr_scheduler_configs[0].monitor == "val/accuracy"
    assert trainer.lr_scheduler_configs[0].scheduler.last_epoch == 3
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**2)


def test_label_smoothing_and_clipping_reach_the_step():
    torch.manual_seed(0)
    plain = classifier(optimizer=partial(SGD, lr=0.1))
    torch.manual_seed(0)
    smooth = classifier(optimizer=partial(SGD, lr=0.1), label_smoothing=0.5)
    torch.manual_seed(0)
    clipped = classifier(optimizer=partial(SGD, lr=0.1))
    before = torch.cat([parameter.detach().flatten().clone() for parameter in clipped.parameters()])
    fit(plain), fit(smooth)
    fit(clipped, max_steps=1, gradient_clip_val=0.01)
    assert not torch.equal(plain.network.layers[1].weight, smooth.network.layers[1].weight)
    moved = torch.cat([parameter.detach().flatten() for parameter in clipped.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


@pytest.mark.parametrize(("every", "bad_step"), [(50, 5), (3, 5), (1, 1)])
def test_a_loss_that_is_no_number_stops_training_and_names_the_step(every, bad_step, monkeypatch):
    model = classifier()
    calls = []

    def forward(images):
        calls.append(1)
        logits = Classifier.forward(model, images)
        return logits * float("nan") if len(calls) == bad_step else logits

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(FloatingPointError, match=rf"loss became nan at step {bad_step} \(epoch 1\).*optimizer\.lr"):
        fit(model, log_every_n_steps=every)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_label_smoothing_out_of_range(smoothing):
    with pytest.raises(ValueError, match=r"model\.label_smoothing"):
        classifier(label_smoothing=smoothing)


def test_unknown_interval():
    with pytest.raises(ValueError, match="choose step or epoch"):
        classifier(scheduler_interval="minute")


class TwoDigits(Digits):
    """Digits below and from 5 on."""

    class_names = ("small", "large")

    def load(self, split):
        images, labels = super().load(split)
        return images, (labels >= 5).long()


def binary(**options) -> Classifier:
    return Classifier(MLP(hidden=[16], num_classes=1), TwoDigits.class_names, [0.1], [0.3], **options)


def test_one_logit_is_the_sigmoid_and_the_binary_cross_entropy():
    model = binary().eval()
    images, labels = torch.rand(7, 1, 28, 28), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    logit, logits = model.network((images - 0.1) / 0.3)[:, 0], model(images)
    torch.testing.assert_close(logits.softmax(1)[:, 1], logit.sigmoid())
    expected = F.binary_cross_entropy_with_logits(logit, labels.float(), reduction="none")
    torch.testing.assert_close(F.cross_entropy(logits, labels, reduction="none"), expected)


def test_the_threshold_is_chosen_on_validation_images_and_kept():
    trainer, model = fit_binary(threshold="validation")
    images, labels = TwoDigits().dataset("val")[:]
    scores = model.eval()(images).softmax(1)[:, 1].detach()
    assert float(model.threshold) == pytest.approx(youden_threshold(scores, labels), abs=1e-6)
    assert float(model.threshold) != 0.5
    logged = trainer.callback_metrics
    predicted = scores >= model.threshold
    assert float(logged["val/accuracy"]) == pytest.approx(accuracy_score(labels, predicted))
    assert float(logged["val/auroc"]) == pytest.approx(roc_auc_score(labels, scores))
    assert torch.equal(model.state_dict()["threshold"], model.threshold)
    _, fixed = fit_binary(threshold=0.3)
    assert float(fixed.threshold) == pytest.approx(0.3)


def fit_binary(**options) -> tuple[pl.Trainer, Classifier]:
    torch.manual_seed(0)
    model = binary(**options)
    return fit(model, data=TwoDigits(batch_size=100)), model


@pytest.mark.parametrize("images", [1, 10_000])
def test_two_classes_a_validation_loss_that_is_no_number_stops_training(images, monkeypatch):
    model = binary(threshold="validation")

    def forward(batch):
        logits = Classifier.forward(model, batch)
        return logits if model.training else logits.index_fill(0, torch.arange(min(images, len(batch))), math.nan)

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(FloatingPointError, match=r"val/loss became nan .*optimizer\.lr"):
        fit(model, data=TwoDigits(batch_size=100))


def test_class_weights_move_the_decision():
    shares = []
    for weights in ((1.0, 1.0), (1.0, 50.0)):
        _, model = fit_binary(class_weights=weights)
        images, _ = TwoDigits().dataset("val")[:]
        shares.append(float((model.eval()(images).argmax(1) == 1).double().mean()))
    assert shares[1] > shares[0] + 0.2


def test_an_image_normalised_by_itself_is_the_same_in_any_light():
    model = Classifier(MLP(hidden=[16]), Digits.class_names, normalize="image").eval()
    images = torch.rand(5, 1, 28, 28)
    seen = []
    model.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(images)
    model(images * 0.5 + 0.2)
    torch.testing.assert_close(seen[0].mean((1, 2, 3)), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(seen[0], seen[1], atol=0.15, rtol=0)
    assert not model(torch.zeros(1, 1, 28, 28)).isnan().any()


@pytest.mark.parametrize("options", [{"threshold": 0}, {"threshold": "best"}, {"normalize": "batch"}])
def test_bad_options_of_the_head(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"model\\.{name}={value}"):
        binary(**options)


def test_a_compiled_network_learns_the_same(train, tmp_path, monkeypatch):
    modes, compile_ = [], nn.Module.compile

    def traced(self, mode):  # captured as ever, and then run by torch itself: no C++ compiler is needed
        modes.append(mode)
        compile_(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    recipe = (*SMALL, "trainer.precision=32-true", "callbacks=ema")
    for name, option in (("eager", "model.compile=null"), ("compiled", "model.compile=reduce-overhead")):
        assert train(*recipe, option, f"hydra.run.dir={name}").code == 0
    assert modes == ["reduce-overhead"]
    eager, compiled = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("eager", "compiled")
    )
    assert eager.keys() == compiled.keys()
    assert all(torch.equal(eager[name], compiled[name]) for name in eager)


def test_a_compile_mode_that_is_none_is_refused(train):
    error = train(*SMALL, "model.compile=fast").error
    assert "model.compile=fast: leave it null, or choose default, reduce-overhead, max-autotune" in error

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, roc_auc_score
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau

from imgclf.core.metrics import youden_threshold
from imgclf.data.digits import Digits
from imgclf.models.classifier import Classifier
from tests.models.fitting import TwoDigits, fit, fit_two_classes, ten_classes, two_classes


def test_a_notebook_needs_no_hydra_and_the_metrics_are_scikit_learns():
    model = ten_classes()
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


@pytest.mark.parametrize(
    ("factory", "interval", "final"),
    [
        (partial(OneCycleLR, max_lr=0.1, total_steps=None), "step", 0.1 / 25 / 1e4),
        (partial(CosineAnnealingLR, T_max=None), "step", 0.1 * (1 + math.cos(math.pi * 25 / 26)) / 2),
        (partial(CosineAnnealingLR), "epoch", 0.1 * (1 + math.cos(math.pi / 2)) / 2),
    ],
)
def test_schedules_get_the_length_of_the_run(factory, interval, final):
    model = ten_classes(optimizer=partial(SGD, lr=0.1), scheduler=factory, scheduler_interval=interval)
    trainer = fit(model, 2)
    assert trainer.global_step == 2 * 13
    assert float(trainer.callback_metrics["lr"]) == pytest.approx(final, rel=1e-5)  # of the last step


def test_a_plateau_schedule_is_refused():
    with pytest.raises(ValueError, match=r"^scheduler=ReduceLROnPlateau: "):
        fit(ten_classes(scheduler=partial(ReduceLROnPlateau, mode="max")))


@pytest.mark.parametrize(
    ("factory", "fault"),
    [
        (partial(OneCycleLR, max_lr=0.1, total_steps=12), "total_steps=12"),
        (partial(CosineAnnealingLR, T_max=0), "T_max=0"),
    ],
)
def test_a_schedule_that_ends_before_the_run_is_refused(factory, fault):
    with pytest.raises(ValueError, match=f"^{fault}: leave it out"):
        fit(ten_classes(scheduler=factory))


def test_clipping_reaches_the_step():
    model = ten_classes(optimizer=partial(SGD, lr=0.1))
    before = torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
    fit(model, max_steps=1, gradient_clip_val=0.01)
    moved = torch.cat([parameter.detach().flatten() for parameter in model.parameters()]) - before
    assert float(moved.norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_validation_is_in_float32_while_training_is_in_bfloat16():
    seen = {}
    model = ten_classes()
    model.network.register_forward_hook(lambda module, inputs, logits: seen.update({module.training: logits.dtype}))
    trainer = fit(model, precision="bf16-mixed")
    assert seen == {True: torch.bfloat16, False: torch.float32}
    images, labels = Digits().dataset("val")[:]
    loss = F.cross_entropy(model.eval()(images).detach(), labels)
    assert float(trainer.callback_metrics["val/loss"]) == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize(("every", "bad_step"), [(50, 5), (3, 5), (1, 1)])
def test_a_loss_that_is_no_number_stops_training_and_names_the_step(every, bad_step, monkeypatch):
    model = ten_classes()
    calls = []

    def forward(images):
        calls.append(1)
        logits = Classifier.forward(model, images)
        return logits * float("nan") if len(calls) == bad_step else logits

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(FloatingPointError, match=rf"loss became nan at step {bad_step} \(epoch 1\).*lr=0\.001"):
        fit(model, log_every_n_steps=every)


def test_the_threshold_is_chosen_on_validation_images_and_kept():
    trainer, model = fit_two_classes(threshold="validation")
    images, labels = TwoDigits().dataset("val")[:]
    scores = model.eval()(images).softmax(1)[:, 1].detach()
    assert float(model.threshold) == pytest.approx(youden_threshold(scores, labels), abs=1e-6)
    assert float(model.threshold) != 0.5
    logged = trainer.callback_metrics
    predicted = scores >= model.threshold
    assert float(logged["val/accuracy"]) == pytest.approx(accuracy_score(labels, predicted))
    assert float(logged["val/auroc"]) == pytest.approx(roc_auc_score(labels, scores))
    assert torch.equal(model.state_dict()["threshold"], model.threshold)
    _, fixed = fit_two_classes(threshold=0.3)
    assert float(fixed.threshold) == pytest.approx(0.3)


@pytest.mark.parametrize("images", [1, 10_000])
def test_two_classes_a_validation_loss_that_is_no_number_stops_training(images, monkeypatch):
    model = two_classes(threshold="validation")

    def forward(batch):
        logits = Classifier.forward(model, batch)
        return logits if model.training else logits.index_fill(0, torch.arange(min(images, len(batch))), math.nan)

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(FloatingPointError, match=r"val/loss became nan .*lr=0\.001"):
        fit(model, data=TwoDigits(batch_size=100))

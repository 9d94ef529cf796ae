"""What starting weights are good for, and the lower rate of the body."""

import json

import pytest
import torch

from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.optim.muon import Muon


def test_five_epochs_from_a_checkpoint_beat_five_from_nothing(script, tmp_path):
    quiet = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "evaluate_on=[val]"]

    def loss_and_accuracy(folder, *options):
        done = script("train.py", *quiet, *options, f"hydra.run.dir={folder}")
        assert done.code == 0, done.err
        metrics = json.loads((tmp_path / folder / "metrics.json").read_text())
        return metrics["val/loss"], metrics["val/accuracy"]

    first = ["data=noisy_digits", "data.variation=basic", "model=cnn", "model.channels=[8,16]", "trainer.max_epochs=5"]
    loss_and_accuracy("start", *first)
    second = [
        "data=noisy_digits",
        "data.variation=back-rand",
        "model=cnn",
        "model.channels=[8,16]",
        "trainer.max_epochs=5",
    ]
    scratch = loss_and_accuracy("scratch", *second)
    continued = loss_and_accuracy("continued", *second, "model.weights=start/checkpoints/best.ckpt")
    assert continued[0] < scratch[0]
    assert continued[1] >= scratch[1]


def groups(optimizer, scheduler=None):
    """The optimizer, and the scheduler, of a classifier whose body has a tenth of the rate."""
    classifier = Classifier(CNN(channels=[4]), list("0123456789"), optimizer=optimizer, body_lr_factor=0.1)
    classifier.scheduler, classifier.scheduler_interval = scheduler, "epoch"
    classifier._trainer = type("Trainer", (), {"max_epochs": 10})()
    configured = classifier.configure_optimizers()
    return classifier, configured if scheduler is None else configured["optimizer"]


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-2)


def test_the_body_has_a_lower_rate_than_the_head():
    classifier, optimizer = groups(adam)
    body, head = optimizer.param_groups
    assert (body["lr"], head["lr"]) == (pytest.approx(1e-3), 1e-2)
    assert len(head["params"]) == 2
    assert head["params"][0] is classifier.network.get_head()[0].weight
    assert len(body["params"]) + 2 == len(list(classifier.parameters()))


def test_one_cycle_keeps_the_lower_rate():
    from functools import partial

    from torch.optim.lr_scheduler import OneCycleLR

    _, optimizer = groups(adam, partial(OneCycleLR, max_lr=1e-2, total_steps=None))
    assert [group["max_lr"] for group in optimizer.param_groups] == [pytest.approx(1e-3), 1e-2]


def test_an_optimizer_with_groups_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"^body_lr_factor=0.1: Muon has groups of its own"):
        groups(Muon)

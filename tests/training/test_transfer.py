"""What starting weights are good for, and the lower rate of the body."""

import pytest
import torch
import torch.nn.functional as F

from imgclf.checkpoints.files import METADATA_KEY, AtomicCheckpointIO
from imgclf.checkpoints.metadata import build_metadata
from imgclf.checkpoints.weights import load_weights
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.optim.muon import Muon


def test_five_epochs_from_a_checkpoint_beat_five_from_nothing(tmp_path):
    """A network for the digits 0 to 4 goes on with few images of the digits 5 to 9: means over three seeds."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16, torch.tensor(bunch.target)

    def validated(first_digit, network, every):
        """Trains for five epochs on one of ``every`` images of five digits; returns loss and accuracy on the rest."""
        rows = ((labels >= first_digit) & (labels < first_digit + 5)).nonzero().flatten()
        train, val = rows[::every], rows[torch.arange(len(rows)) % every > 0]
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        for epoch in range(5):
            for batch in train[torch.randperm(len(train), generator=torch.Generator().manual_seed(epoch))].split(32):
                optimizer.zero_grad()
                F.cross_entropy(network.train()(images[batch]), labels[batch] - first_digit).backward()
                optimizer.step()
        logits = network.eval()(images[val])
        wanted = labels[val] - first_digit
        return float(F.cross_entropy(logits, wanted)), float((logits.argmax(1) == wanted).float().mean())

    def classifier():
        return Classifier(CNN((1, 8, 8), 5, channels=[16, 32], padding=1, dropout=0.0), list("abcde"))

    results = {"scratch": [], "continued": []}
    for seed in range(3):
        torch.manual_seed(seed)
        start = classifier()
        validated(0, start.network, every=2)
        content = {"state_dict": start.state_dict(), "epoch": 4, METADATA_KEY: build_metadata(start)}
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / "best.ckpt")
        scratch, continued = classifier().network, classifier().network
        assert "left the head" in load_weights(continued, tmp_path / "best.ckpt", list("56789"))
        results["scratch"].append(validated(5, scratch, every=5))
        results["continued"].append(validated(5, continued, every=5))
    means = {name: torch.tensor(values).mean(0) for name, values in results.items()}
    print(means)
    loss, accuracy = means["continued"] - means["scratch"]
    assert loss < 0
    assert accuracy > 0


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

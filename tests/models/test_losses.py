from functools import partial

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import nn
from torch.optim import SGD

from imgclf.data.digits import Digits
from imgclf.models.losses import build_loss
from tests.conftest import PROJECT, SMALL
from tests.models.fitting import TwoDigits, fit, fit_two_classes, ten_classes

FOCAL = """
import torch
import torch.nn.functional as F
from torch import nn


class FocalLoss(nn.Module):
    def __init__(self, gamma=2.0):
        super().__init__()
        self.gamma = gamma

    def forward(self, logits, labels):
        loss = F.cross_entropy(logits, labels, reduction="none")
        return (loss * (1 - torch.exp(-loss)) ** self.gamma).mean()
"""


@pytest.fixture
def focal(tmp_path, monkeypatch):
    """What a user adds for a loss of one's own: a class in imgclf/models and a file in conf/loss."""
    import imgclf.models

    (tmp_path / "focal.py").write_text(FOCAL)
    monkeypatch.setattr(imgclf.models, "__path__", [*imgclf.models.__path__, str(tmp_path)])
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "focal.yaml").write_text("_target_: imgclf.models.focal.FocalLoss\n")
    return tmp_path


def test_a_loss_is_one_class_and_one_line_of_yaml(focal):
    with initialize_config_dir(str(PROJECT / "conf")):
        config = compose("train", ["loss=focal", "+loss.gamma=3", f"hydra.searchpath=[{focal}]"])
    loss = build_loss(instantiate(config.loss, _partial_=True, _execution_whitelist_=("imgclf.*",)))
    assert (type(loss).__name__, loss.gamma) == ("FocalLoss", 3)
    model = ten_classes(loss=loss)
    trainer = fit(model, 2)
    images, labels = Digits().dataset("val")[:]
    logits = model.eval()(images).detach()
    logged = trainer.callback_metrics
    assert float(logged["val/loss"]) == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-5)  # not focal
    assert float(logged["train/loss"]) < float(logged["val/loss"])
    assert float(logged["val/accuracy"]) > 0.5


def test_train_py_takes_a_loss_of_ones_own(focal, train, tmp_path):
    given = (*SMALL, "loss=focal", f"hydra.searchpath=[{focal}]")
    train(*given, "hydra.run.dir=run").ok()
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    train(*SMALL, "hydra.run.dir=plain").ok()
    plain = torch.load(tmp_path / "plain" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert saved.keys() == plain.keys()
    assert not torch.equal(saved["network.layers.1.weight"], plain["network.layers.1.weight"])
    error = train(*given, "data.balance=weighted_loss").error
    assert "balance=weighted_loss: FocalLoss takes no weight" in error
    assert "balance=sampler" in error


def test_label_smoothing_reaches_the_step():
    weights = []
    for smoothing in (0.0, 0.5):
        torch.manual_seed(0)
        loss = nn.CrossEntropyLoss(label_smoothing=smoothing)
        model = ten_classes(optimizer=partial(SGD, lr=0.1), loss=loss)
        fit(model)
        weights.append(model.network.layers[1].weight)
    assert not torch.equal(*weights)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan"), "high"])
def test_label_smoothing_out_of_range(smoothing):
    with pytest.raises(ValueError, match=f"^label_smoothing={smoothing}: "):
        ten_classes(loss=nn.CrossEntropyLoss(label_smoothing=smoothing))


def test_class_weights_move_the_decision():
    shares = []
    for weights in ([1.0, 1.0], [1.0, 50.0]):
        _, model = fit_two_classes(loss=build_loss(nn.CrossEntropyLoss, weights))
        images, _ = TwoDigits().dataset("val")[:]
        shares.append(float((model.eval()(images).argmax(1) == 1).double().mean()))
    assert shares[1] > shares[0] + 0.2


def test_class_weights_are_the_loss_s_own_and_in_no_checkpoint():
    loss = build_loss(partial(nn.CrossEntropyLoss, label_smoothing=0.1), [1.0, 2.0])
    assert loss.weight.tolist() == [1.0, 2.0]
    assert loss.label_smoothing == 0.1
    assert build_loss(nn.CrossEntropyLoss).weight is None
    assert (
        ten_classes(loss=build_loss(nn.CrossEntropyLoss, [1.0] * 10)).state_dict().keys()
        == ten_classes().state_dict().keys()
    )


def test_a_loss_with_parameters_is_refused():
    class Scaled(nn.CrossEntropyLoss):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

    with pytest.raises(ValueError, match=r"^loss=Scaled: it has parameters"):
        ten_classes(loss=Scaled())

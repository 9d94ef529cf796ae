import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imgclf.data.digits import Digits
from imgclf.models.classifier import Classifier
from imgclf.models.mlp import MLP
from tests.conftest import SMALL
from tests.models.fitting import ten_classes, two_classes


def test_normalisation_is_inside_and_takes_bytes_and_floats():
    model = ten_classes().eval()
    images = torch.randint(0, 256, (5, 1, 28, 28), dtype=torch.uint8)
    expected = model.network((images.float() / 255 - 0.1) / 0.3)
    torch.testing.assert_close(model(images), expected)
    torch.testing.assert_close(model(images.float() / 255), expected)


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


def test_one_logit_is_the_sigmoid_and_the_binary_cross_entropy():
    model = two_classes().eval()
    images, labels = torch.rand(7, 1, 28, 28), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    logit, logits = model.network((images - 0.1) / 0.3)[:, 0], model(images)
    torch.testing.assert_close(logits.softmax(1)[:, 1], logit.sigmoid())
    expected = F.binary_cross_entropy_with_logits(logit, labels.float(), reduction="none")
    torch.testing.assert_close(F.cross_entropy(logits, labels, reduction="none"), expected)


@pytest.mark.parametrize(
    "options",
    [
        *({"threshold": value} for value in (0, 1.5, "best", True)),
        *({"normalize": "batch"}, {"scheduler_interval": "minute"}, {"compile": "fast"}, {"channels_last": "no"}),
        {"seed": -1},
    ],
)
def test_a_bad_argument_is_named_with_its_value(options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"^{name}={re.escape(str(value))}: "):
        two_classes(**options)


def test_a_compiled_network_learns_the_same(train, tmp_path, monkeypatch):
    modes, compile_ = [], nn.Module.compile

    def traced(self, mode):  # captured as ever, and then run by torch itself: no C++ compiler is needed
        modes.append(mode)
        compile_(self, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", traced)
    recipe = (*SMALL, "trainer.precision=32-true", "callbacks=ema")
    for name, option in (("eager", "classifier.compile=null"), ("compiled", "classifier.compile=reduce-overhead")):
        train(*recipe, option, f"hydra.run.dir={name}").ok()
    assert modes == ["reduce-overhead"]
    eager, compiled = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("eager", "compiled")
    )
    assert eager.keys() == compiled.keys()
    assert all(torch.equal(eager[name], compiled[name]) for name in eager)


def test_pretrained_weights_bring_the_statistics_they_were_trained_with():
    network = MLP(hidden=[16])
    network.statistics = [0.45], [0.22]
    model = Classifier(network, Digits.class_names, mean=[0.1], std=[0.3])
    assert (model.mean.item(), model.std.item()) == pytest.approx((0.45, 0.22))

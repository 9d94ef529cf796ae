import os

import pytest
import torch
from torch import nn

from imgclf import load
from imgclf.checkpoints.files import METADATA_KEY, AtomicCheckpointIO
from imgclf.checkpoints.meta_device import unsaved_tensors, weights_on_meta
from imgclf.checkpoints.metadata import build_metadata, network_classes
from imgclf.data.digits import Digits
from imgclf.models.classifier import Classifier
from imgclf.models.network import Network
from imgclf.models.p4cnn import P4CNN
from imgclf.models.torchvision_models import TorchvisionNetwork


def save(content, path):
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


def checkpoint(classifier):
    return {"state_dict": classifier.state_dict(), METADATA_KEY: build_metadata(classifier)}


def randomized(network: Network) -> Network:
    """Buffers are random too, so that none can be mistaken for its initial value."""
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if "running_var" in name else value.normal_(0, 0.05)
        elif value.ndim == 0:
            value.fill_(7)
    return network.eval()


def test_a_checkpoint_is_self_contained(content, tmp_path):
    path = save(content, tmp_path / "best.ckpt")
    assert os.listdir(tmp_path) == ["best.ckpt"]
    torch.load(path, weights_only=True)
    predictor = load(path)
    assert predictor.class_names == list(Digits.class_names)
    assert predictor.image_shape == (1, 28, 28)
    assert predictor.metadata == content[METADATA_KEY]
    assert predictor.epoch == 3
    for name, value in predictor.classifier.state_dict().items():
        assert torch.equal(value, content["state_dict"][name])
    assert not any(value.is_meta for value in (*predictor.classifier.parameters(), *predictor.classifier.buffers()))


def test_the_preprocessing_is_the_one_of_training(content, tmp_path):
    content[METADATA_KEY]["preprocessing"].update(reader="image_file", polarity="dark_on_light")
    predictor = load(save(content, tmp_path / "a.ckpt"))
    assert (predictor.reader, predictor.polarity) == ("image_file", "dark_on_light")
    del content["epoch"], content[METADATA_KEY]["preprocessing"]["fit"]  # as older checkpoints are
    predictor = load(save(content, tmp_path / "a.ckpt"))
    assert (predictor.epoch, predictor.fit) == (None, "stretch")


NETWORKS = {
    "p4cnn": lambda: P4CNN(channels=[4, 4]),
    **{
        name: lambda name=name, side=side: TorchvisionNetwork((3, side, side), 10, name)
        for name, side in {
            "resnet18": 32,
            "vit_b_16": 32,
            "swin_t": 32,
            "swin_v2_t": 64,
            "maxvit_t": 224,
            "inception_v3": 75,
            "googlenet": 32,
            "regnet_x_400mf": 32,  # computes its widths by torch
            "efficientnet_b0": 32,
            "convnext_tiny": 32,
        }.items()
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loaded_network_answers_as_the_saved_one(name, tmp_path):
    network = randomized(NETWORKS[name]())
    classifier = Classifier(network, Digits.class_names, [0.2], [0.4]).eval()
    predictor = load(save(checkpoint(classifier), tmp_path / "a.ckpt"))
    images = torch.rand(2, *network.init_args["image_shape"])
    with torch.inference_mode():
        torch.testing.assert_close(predictor.logits(images), classifier(images), rtol=1e-4, atol=1e-4)
    loaded = predictor.classifier.state_dict()
    assert loaded.keys() == classifier.state_dict().keys()
    for key, value in classifier.state_dict().items():
        assert torch.equal(loaded[key], value)
        assert loaded[key].dtype == value.dtype
    assert all(parameter.requires_grad for parameter in predictor.classifier.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_weights_of_another_precision_become_float32(dtype, content, tmp_path):
    content["state_dict"] = {name: value.to(dtype) for name, value in content["state_dict"].items()}
    predictor = load(save(content, tmp_path / "a.ckpt"))
    assert {value.dtype for value in predictor.classifier.state_dict().values()} == {torch.float32}
    assert len(predictor.predict(torch.zeros(2, 1, 28, 28))) == 2


def test_class_weights_of_the_loss_are_left_out(content, tmp_path):
    content["state_dict"]["loss.weight"] = torch.ones(10)
    assert "loss.weight" not in load(save(content, tmp_path / "a.ckpt")).classifier.state_dict()


class Buffers(Network):
    """Keeps a table outside its state_dict, and a plain tensor, as some attention layers do."""

    def __init__(self, image_shape=(1, 4, 4), num_classes=1, size=16):
        super().__init__()
        self.layer = nn.Linear(16, num_classes)
        self.register_buffer("table", torch.zeros(size), persistent=False)
        self.table[:16] = torch.arange(16)
        self.factor = torch.full((1,), 3.0)

    def forward(self, images):
        return self.layer(images.flatten(1) * self.table[:16]) * self.factor


def test_tensors_outside_the_state_dict_are_computed_again_within_bounds(tmp_path, monkeypatch):
    known = (*network_classes(), f"{Buffers.__module__}.{Buffers.__qualname__}")
    monkeypatch.setattr("imgclf.inference.load.network_classes", lambda: known)
    with weights_on_meta(max_parameters=2):
        assert len(unsaved_tensors(Buffers())) == 2
    classifier = Classifier(Buffers(), ["a", "b"]).eval()
    saved = checkpoint(classifier)
    images = torch.rand(3, 1, 4, 4)
    with torch.inference_mode():
        expected = classifier(images)
    torch.testing.assert_close(load(save(saved, tmp_path / "a.ckpt")).logits(images), expected)
    saved[METADATA_KEY]["network"]["size"] = 10**11
    with pytest.raises(ValueError, match=r"refused.*bytes"):
        load(save(saved, tmp_path / "a.ckpt"))


def test_weights_on_meta_are_those_of_this_block_only():
    with weights_on_meta(max_parameters=2):
        assert all(parameter.is_meta for parameter in nn.Linear(10**6, 10**6).parameters())
        with pytest.raises(ValueError, match="more than 2 parameters"):
            nn.Linear(2, 2)
    assert not nn.Linear(2, 2).weight.is_meta

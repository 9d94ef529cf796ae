"""Networks that start from the weights of a file."""

import functools
import os
import zipfile

import pytest
import torch
from torch import nn

from imgclf.checkpoints.files import METADATA_KEY, AtomicCheckpointIO
from imgclf.checkpoints.metadata import build_metadata
from imgclf.checkpoints.weights import build_network, load_weights
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.models.mlp import MLP
from imgclf.models.torchvision_models import TorchvisionNetwork

SHAPE = (1, 12, 12)
DIGITS = list("0123456789")


def cnn(classes=10, channels=1):
    return CNN((channels, 12, 12), classes, channels=[4, 6])


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of a network for grey digits, and that network."""
    classifier = Classifier(cnn(), DIGITS, mean=[0.25], std=[0.5], normalize="image")
    content = {"state_dict": classifier.state_dict(), "epoch": 0, METADATA_KEY: build_metadata(classifier)}
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt", classifier.network


def same(first: nn.Module, second: nn.Module) -> set[str]:
    """The names of the tensors that two networks share."""
    others = second.state_dict()
    return {name for name, value in first.state_dict().items() if torch.equal(value, others.get(name, torch.empty(0)))}


def test_a_checkpoint_of_the_same_classes_is_taken_whole(checkpoint):
    path, source = checkpoint
    network = cnn()
    assert load_weights(network, path, DIGITS) == f"weights={path}: took 3 of 3 layers"
    assert same(network, source) == set(network.state_dict())
    assert network.statistics == ([0.25], [0.5])
    assert Classifier(network, DIGITS, mean=[0.9], std=[0.9]).normalize == "image"


def test_the_head_of_other_classes_is_left(checkpoint):
    path, source = checkpoint
    letters = list("abcdefghij")
    for network in (cnn(), cnn(26)):
        assert "took 2 of 3 layers; left the head, layers." in load_weights(network, path, letters)
        assert len(same(network, source)) == 4


def test_a_first_convolution_for_colour_answers_to_grey_as_before(checkpoint):
    path, source = checkpoint
    network = cnn(channels=3)
    assert "adapted layers.0 to the channels" in load_weights(network, path, DIGITS)
    grey = torch.rand(2, 1, 12, 12)
    torch.testing.assert_close(network.eval()(grey.expand(-1, 3, -1, -1)), source.eval()(grey))
    assert network.statistics == ([0.25] * 3, [0.5] * 3)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"epoch": 3, "model_state": s}, lambda s: {"state_dict": s}])
@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
@pytest.mark.parametrize("old", [False, True])
def test_state_dicts_of_other_programs(wrap, prefix, old, tmp_path):
    source = cnn()
    state = {prefix + name: value for name, value in source.state_dict().items()}
    torch.save(wrap(state), tmp_path / "a.pth", _use_new_zipfile_serialization=not old)
    network = cnn()
    assert load_weights(network, tmp_path / "a.pth").endswith("took 3 of 3 layers")
    assert same(network, source) == set(source.state_dict())


def test_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    source = TorchvisionNetwork((3, 32, 32), 1000)
    save_file(source.network.state_dict(), tmp_path / "a.safetensors")
    network = TorchvisionNetwork((1, 32, 32), 1)
    message = load_weights(network, tmp_path / "a.safetensors")
    assert message.endswith("took 40 of 41 layers; adapted network.conv1 to the channels; left the head, network.fc")
    assert network.statistics[0] == pytest.approx([0.449])  # ImageNet's
    whole = tmp_path / "a.safetensors"
    for name, size in (("half", 2), ("little", 10**6)):
        (tmp_path / f"{name}.safetensors").write_bytes(whole.read_bytes()[: -whole.stat().st_size // size])
        with pytest.raises(ValueError, match=rf"^weights=.*{name}.safetensors: damaged, or no file of safetensors"):
            load_weights(network, tmp_path / f"{name}.safetensors")


def test_layers_of_other_names_are_matched_by_their_order(tmp_path):
    source = cnn(1000)
    renamed = {
        f"part{i}.{name.rpartition('.')[2]}": value for i, (name, value) in enumerate(source.state_dict().items())
    }
    torch.save(renamed, tmp_path / "a.pt")
    network = cnn(10)
    assert "took 2 of 3 layers by their order" in load_weights(network, tmp_path / "a.pt")
    assert len(same(network, source)) == 4


class Call:
    """Is pickled as a call of a function."""

    def __reduce__(self):
        return os.mkdir, ("was_executed",)


def bad_files(folder):
    """File name to the words of its refusal."""
    state = cnn().state_dict()
    torch.save(state, folder / "whole.pt")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({**state, "more": Call()}, folder / "calls.pt")
    torch.save({**state, "more": Call()}, folder / "calls_old.pt", _use_new_zipfile_serialization=False)
    torch.save({"layers.0.weight": torch.zeros(1).expand(10**10)}, folder / "bomb.pt")
    torch.save({name: value * torch.nan for name, value in state.items()}, folder / "nan.pt")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"lr": 0.1, "nested": {"a": 1}}, folder / "numbers.pt")
    torch.save(MLP(SHAPE, 10, [7]).state_dict(), folder / "mlp.pt")
    torch.save({name: value for name, value in state.items() if value.shape[0] == 10}, folder / "head.pt")
    for name, whole in (("half.pt", "whole.pt"), ("half_old.pth", "old.pth")):
        content = (folder / whole).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
    with zipfile.ZipFile(folder / "zip_bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    (folder / "text.pt").write_text("no weights")
    (folder / "empty.pth").touch()
    damaged = ("half.pt", "half_old.pth", "text.pt", "empty.pth")
    return {
        **dict.fromkeys(damaged, "damaged"),
        **dict.fromkeys(("calls.pt", "calls_old.pt"), "it calls posix.mkdir"),
        **dict.fromkeys(("list.pt", "numbers.pt"), "no dictionary of tensors"),
        "bomb.pt": "smaller than it says",
        "zip_bomb.pt": "it is compressed",
        "nan.pt": "NaN",
        "mlp.pt": "nothing fits.*layers.1.weight.*layers.0.weight",
        "head.pt": "only the head fits",
        "nowhere.pt": "no such file",
    }


def test_bad_files_are_refused_in_one_line_and_nothing_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, words in bad_files(tmp_path).items():
        network = cnn()
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with pytest.raises((ValueError, FileNotFoundError), match=f"^weights={name}: .*{words}") as error:
            load_weights(network, name)
        assert "\n" not in str(error.value)
        assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not (tmp_path / "was_executed").exists()


def test_every_network_takes_weights_and_frozen_epochs(checkpoint):
    path, source = checkpoint
    factory = functools.partial(CNN, SHAPE, 10, channels=[4, 6])
    assert not same(build_network(factory), source)
    network = build_network(functools.partial(factory, weights=str(path), freeze_epochs=1))
    assert same(network, source)
    network.train().begin_epoch(0)
    assert [name for name, value in network.named_parameters() if value.requires_grad] == list(network.state_dict())[
        -2:
    ]
    network.begin_epoch(1)
    assert all(value.requires_grad for value in network.parameters())
    with pytest.raises(FileNotFoundError, match=r"^weights=DEFAULT: no such file"):
        build_network(functools.partial(factory, weights="DEFAULT"))
    with pytest.raises(ValueError, match=r"^freeze_epochs=2: .*no layer beside its head"):
        build_network(functools.partial(MLP, SHAPE, 10, hidden=[], freeze_epochs=2))
    with pytest.raises(ValueError, match=r"^freeze_epochs=-1: give a whole number"):
        build_network(functools.partial(factory, freeze_epochs=-1))

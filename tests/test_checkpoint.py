import copy
import os
import pickle
import zipfile
from functools import partial

import numpy as np
import pytest
import torch

from imgclf import load
from imgclf.checkpoint import KEY, AtomicCheckpointIO, config_of, data_config, data_modules, describe, networks, read
from imgclf.data.digits import Digits
from imgclf.data.noisy import NoisyImages
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN


@pytest.fixture
def good():
    """The content of a small checkpoint."""
    classifier = Classifier(CNN(channels=[4]), Digits.class_names, [0.2], [0.4])
    card = describe(classifier, NoisyImages(base="digits", variation="rot"))
    return {"state_dict": classifier.state_dict(), "epoch": 2, KEY: card}


def save(content, path):
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


def test_a_checkpoint_is_self_contained(good, tmp_path):
    path = save(good, tmp_path / "best.ckpt")
    assert os.listdir(tmp_path) == ["best.ckpt"]
    torch.load(path, weights_only=True)
    predictor = load(path)
    assert predictor.class_names == list(Digits.class_names)
    assert predictor.image_shape == (1, 28, 28)
    for name, value in predictor.classifier.state_dict().items():
        assert torch.equal(value, good["state_dict"][name])
    assert data_config(path) == {
        "_target_": "imgclf.data.noisy.NoisyImages",
        "data_dir": "${data_dir}",
        "base": "digits",
        "variation": "rot",
        "protocol": "full",
        "fresh": True,
        "backgrounds": None,
        **{
            "batch_size": 128,
            "eval_batch_size": 1000,
            "val_fraction": 0.1,
            "split_seed": 0,
            "seed": 0,
            "balance": "none",
            "num_workers": 0,
        },
    }


def test_a_failed_write_leaves_the_earlier_checkpoint(good, tmp_path):
    path = save(good, tmp_path / "best.ckpt")
    before = path.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        save({**good, "unpicklable": lambda: 0}, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["best.ckpt"]


def test_whitelists_hold_classes_of_our_own_only():
    assert networks() == (
        "imgclf.models.cnn.CNN",
        "imgclf.models.mlp.MLP",
        "imgclf.models.resnet.ResNet",
        "imgclf.models.torchvision_zoo.TorchvisionNetwork",
    )
    assert data_modules() == (
        "imgclf.data.digits.Digits",
        "imgclf.data.folder.ImageFolder",
        "imgclf.data.noisy.NoisyImages",
        "imgclf.data.torchvision_sets.TorchvisionImages",
    )


def test_a_checkpoint_that_would_download_weights_is_refused(good, tmp_path):
    target = "imgclf.models.torchvision_zoo.TorchvisionNetwork"
    good["imgclf"]["network"] = {"_target_": target, "image_shape": [1, 32, 32], "weights": "DEFAULT"}
    torch.save(good, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="refused: its network would fetch weights"):
        load(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "torch.load",
        "torch.hub.load",
        "torch.nn.Linear",
        "builtins.exec",
        "functools.partial",
        "imgclf.checkpoint.load",
        "imgclf.models.classifier.Classifier",
        "imgclf.models.classifier.torch.load",
        "imgclf.models.cnn.CNN.__init__.__globals__",
    ],
)
def test_other_targets_are_refused_by_name(target, good, tmp_path):
    good[KEY]["network"]["_target_"] = target
    with pytest.raises(ValueError, match=f"refused.*{target.split('.')[0]}"):
        load(save(good, tmp_path / "a.ckpt"))
    good[KEY]["data"]["_target_"] = target
    with pytest.raises(ValueError, match=f"refused.*{target.split('.')[0]}"):
        data_config(save(good, tmp_path / "b.ckpt"))


def test_nested_targets_and_interpolations_are_refused(good, tmp_path):
    card = copy.deepcopy(good[KEY])
    for surprise, message in (
        ([{"_target_": "os.system", "command": f"touch {tmp_path}/executed"}], r"refused.*_target_ os\.system"),
        ({"deeper": [{"_partial_": True}]}, "refused.*_partial_"),
        ("${oc.env:HOME}", r"refused.*interpolation \$\{oc\.env:HOME\}"),
        ({"defaults": ["/data: mnist"]}, "refused.*defaults"),
    ):
        for part, reader in (("network", load), ("data", data_config)):
            good[KEY] = copy.deepcopy(card)
            good[KEY][part]["extra"] = surprise
            with pytest.raises(ValueError, match=message):
                reader(save(good, tmp_path / "a.ckpt"))
    good[KEY] = "no dictionary"
    with pytest.raises(ValueError, match="not a checkpoint of imgclf"):
        load(save(good, tmp_path / "a.ckpt"))
    assert not (tmp_path / "executed").exists()


def test_paths_and_numpy_numbers_become_plain(tmp_path):
    data = NoisyImages(base="digits", variation="rot", batch_size=int(np.int64(3)), data_dir=tmp_path)
    data.hparams["backgrounds"], data.hparams["seed"] = tmp_path, np.int64(3)
    config = config_of(data)
    assert config["backgrounds"] == str(tmp_path)
    assert config["seed"] == 3
    assert type(config["seed"]) is int
    data.hparams["seed"] = object()
    with pytest.raises(TypeError, match="object cannot be kept in a checkpoint"):
        config_of(data)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickled_payload_is_refused_and_not_run(good, tmp_path):
    torch.save({**good, "payload": Payload(tmp_path / "executed")}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="refused"):
        read(tmp_path / "a.ckpt")
    assert not (tmp_path / "executed").exists()


def truncate(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize(
    "damage",
    [
        partial(truncate, keep=0),
        partial(truncate, keep=1000),
        lambda path: path.write_text("hello"),
        lambda path: torch.save(torch.zeros(3), path),
        lambda path: torch.save({"state_dict": {}}, path),
        lambda path: zipfile.ZipFile(path, "w").close(),
    ],
)
def test_damaged_and_foreign_files_get_one_message(damage, good, tmp_path):
    path = save(good, tmp_path / "a.ckpt")
    damage(path)
    with pytest.raises(ValueError, match=r"ckpt=.*a\.ckpt"):
        load(path)


def test_missing_file_and_unfitting_weights(good, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "none.ckpt")
    good[KEY]["network"]["channels"] = [8]
    with pytest.raises(ValueError, match="do not fit together"):
        load(save(good, tmp_path / "a.ckpt"))

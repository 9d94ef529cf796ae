import copy
import json
import os
import pickle
import subprocess
import sys
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from imgclf import load
from imgclf.checkpoints.files import METADATA_KEY, AtomicCheckpointIO, read_checkpoint
from imgclf.checkpoints.metadata import (
    build_metadata,
    datamodule_classes,
    network_classes,
    read_data_config,
    rebuild_config,
)
from imgclf.data.digits import Digits
from imgclf.data.noisy import NoisyImages
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from tests.conftest import PROJECT


@pytest.fixture
def good():
    """The content of a small checkpoint."""
    classifier = Classifier(CNN(channels=[4]), Digits.class_names, [0.2], [0.4])
    card = build_metadata(classifier, NoisyImages(base="digits", variation="rot"))
    return {"state_dict": classifier.state_dict(), "epoch": 2, METADATA_KEY: card}


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
    assert read_data_config(path) == {
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
    assert network_classes() == (
        "imgclf.models.cnn.CNN",
        "imgclf.models.mlp.MLP",
        "imgclf.models.p4cnn.P4CNN",
        "imgclf.models.resnet.ResNet",
        "imgclf.models.torchvision_models.TorchvisionNetwork",
    )
    assert datamodule_classes() == (
        "imgclf.data.digits.Digits",
        "imgclf.data.image_folder.ImageFolder",
        "imgclf.data.noisy.NoisyImages",
        "imgclf.data.torchvision_data.TorchvisionImages",
    )


def test_a_checkpoint_that_would_download_weights_is_refused(good, tmp_path):
    target = "imgclf.models.torchvision_models.TorchvisionNetwork"
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
        "imgclf.inference.load.load",
        "imgclf.models.classifier.Classifier",
        "imgclf.models.classifier.torch.load",
        "imgclf.models.cnn.CNN.__init__.__globals__",
    ],
)
def test_other_targets_are_refused_by_name(target, good, tmp_path):
    good[METADATA_KEY]["network"]["_target_"] = target
    with pytest.raises(ValueError, match=f"refused.*{target.split('.')[0]}"):
        load(save(good, tmp_path / "a.ckpt"))
    good[METADATA_KEY]["data"]["_target_"] = target
    with pytest.raises(ValueError, match=f"refused.*{target.split('.')[0]}"):
        read_data_config(save(good, tmp_path / "b.ckpt"))


def test_nested_targets_and_interpolations_are_refused(good, tmp_path):
    card = copy.deepcopy(good[METADATA_KEY])
    for surprise, message in (
        ([{"_target_": "os.system", "command": f"touch {tmp_path}/executed"}], r"refused.*_target_ os\.system"),
        ({"deeper": [{"_partial_": True}]}, "refused.*_partial_"),
        ("${oc.env:HOME}", r"refused.*interpolation \$\{oc\.env:HOME\}"),
        ({"defaults": ["/data: mnist"]}, "refused.*defaults"),
    ):
        for part, reader in (("network", load), ("data", read_data_config)):
            good[METADATA_KEY] = copy.deepcopy(card)
            good[METADATA_KEY][part]["extra"] = surprise
            with pytest.raises(ValueError, match=message):
                reader(save(good, tmp_path / "a.ckpt"))
    good[METADATA_KEY] = "no dictionary"
    with pytest.raises(ValueError, match="not a checkpoint of imgclf"):
        load(save(good, tmp_path / "a.ckpt"))
    assert not (tmp_path / "executed").exists()


def test_paths_and_numpy_numbers_become_plain(tmp_path):
    data = NoisyImages(base="digits", variation="rot", batch_size=int(np.int64(3)), data_dir=tmp_path)
    data.init_args["backgrounds"], data.init_args["seed"] = tmp_path, np.int64(3)
    config = rebuild_config(data)
    assert config["backgrounds"] == str(tmp_path)
    assert config["seed"] == 3
    assert type(config["seed"]) is int
    data.init_args["seed"] = object()
    with pytest.raises(TypeError, match="object cannot be kept in a checkpoint"):
        rebuild_config(data)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_pickled_payload_is_refused_and_not_run(good, tmp_path):
    torch.save({**good, "payload": Payload(tmp_path / "executed")}, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="refused"):
        read_checkpoint(tmp_path / "a.ckpt")
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


class Call:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def network(_target_=None, **arguments):
    """Changes arguments of the network, or names another with these."""

    def change(content):
        config = content[METADATA_KEY]["network"]
        if _target_:
            config = {"_target_": _target_, "image_shape": [1, 28, 28], "num_classes": 10}
        content[METADATA_KEY]["network"] = {**config, **arguments}

    return change


def weight(name, tensor):
    return lambda content: content["state_dict"].update({name: tensor})


def card(**values):
    return lambda content: content[METADATA_KEY].update(values)


def nested(depth):
    """A tree of 10 ** depth leaves in a hundred bytes."""
    value = "leaf"
    for _ in range(depth):
        value = [value] * 10
    return value


ZOO = "imgclf.models.torchvision_models.TorchvisionNetwork"
# What each file declares would take far more than it holds, or cannot be.
STRANGERS = {
    "widths": (network(channels=[10**9, 10**9]), "do not fit together"),
    "widths that fit in memory": (network(channels=[20_000, 20_000]), "larger than the file"),
    "many small layers": (network(_target_="imgclf.models.resnet.ResNet", depth=10**9, widths=[1]), "fit together"),
    "kernel": (network(kernel_size=10**5, padding=10**5), "do not fit together"),
    "no layers": (network(_target_="imgclf.models.resnet.ResNet", widths=[]), "do not fit together"),
    "logits": (network(num_classes=10**9), "10 classes, 1000000000 logits"),
    "image": (network(image_shape=[1, 10**6, 10**6]), "larger than"),
    "image of attention": (network(_target_=ZOO, name="vit_b_16", image_shape=[3, 4000, 4000]), "larger than"),
    "image of no size": (network(image_shape=[1, 0, 28]), "image_shape"),
    "image of strings": (network(image_shape=["1", "28", "28"]), "image_shape"),
    "arguments of other types": (network(channels={"a": [None]}, kernel_size="3"), "do not fit together"),
    "an argument it does not take": (network(surprise=1), "surprise"),
    "a target that is no name": (network(_target_=["os.system"]), "refused"),
    "a target in a list": (network(channels=[{"_target_": "torch.hub.load"}]), r"refused.*_target_ torch\.hub\.load"),
    "a partial": (network(channels={"_partial_": True}), "refused.*_partial_"),
    "arguments by position": (network(_args_=["rm"]), "refused.*_args_"),
    "a key that is no string": (network(channels={1: 2}), "refused"),
    "a tree of leaves": (network(channels=nested(9)), "more than 10000 values"),
    "a tree in the data": (
        lambda content: content[METADATA_KEY]["data"].update(root=nested(9)),
        "more than 10000 values",
    ),
    "a hundred thousand classes": (card(class_names=["a"] * 10**5), "100000 classes"),
    "classes in a tree": (card(class_names=nested(9)), "called by list"),
    "a class that writes to the terminal": (card(class_names=["\x1b[2J"] * 10), r"'\\x1b\[2J'"),
    "a class of a book": (card(class_names=["a" * 10**5] * 10), "up to 255"),
    "no classes": (card(class_names=None), "do not fit together"),
    "normalised by a tree": (card(normalize=nested(9)), "do not fit together"),
    "statistics": (weight("std", torch.tensor([[[float("nan")]]])), "std holds NaN"),
    "no deviation": (weight("std", torch.zeros(1, 1, 1)), "std is out of range"),
    "statistics of more channels": (weight("mean", torch.zeros(3, 1, 1)), "mean is of 3 values"),
    "threshold": (weight("threshold", torch.tensor(float("nan"))), "threshold holds NaN"),
    "threshold out of range": (weight("threshold", torch.tensor(2.0)), "threshold is out of range"),
    "NaN": (weight("network.layers.0.bias", torch.full([4], float("nan"))), "holds NaN"),
    "complex": (weight("network.layers.0.bias", torch.zeros(4, dtype=torch.complex64)), "complex64"),
    "no tensor": (weight("network.layers.0.bias", [0, 0, 0, 0]), "no tensor"),
    "one value that says it is many": (weight("mean", torch.zeros(1).expand(10**12)), "smaller than it says"),
    "a tensor of nothing": (weight("mean", torch.zeros(10**10, device="meta")), "refused.*it calls.*meta"),
    "a sparse tensor": (weight("mean", torch.eye(2).to_sparse()), "refused.*it calls.*sparse"),
    "a quantised tensor": (
        lambda content: content.update(more=torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)),
        "refused.*it calls.*qtensor",
    ),
    "a bytearray": (lambda content: content.update(more=Call(bytearray, 10**10)), "refused.*calls.*bytearray"),
    "a tensor not filled": (lambda content: content.update(more=Call(torch.Tensor, 10**9)), "refused.*torch.Tensor"),
    "no dictionary of weights": (lambda content: content.update(state_dict=[]), "do not fit together"),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("case", STRANGERS)
def test_what_a_stranger_declares_is_refused(case, good, tmp_path):
    change, message = STRANGERS[case]
    change(good)
    torch.save(good, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=message) as raised:
        load(tmp_path / "a.ckpt")
    assert len(str(raised.value)) < 1000


def squeeze(path):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_compressed_archive_and_an_endless_pickle_are_refused(good, tmp_path):
    good["more"] = torch.zeros(10**6)
    path = save(good, tmp_path / "a.ckpt")
    squeeze(path)
    assert path.stat().st_size < 10**5
    with pytest.raises(ValueError, match=r"refused.*it is compressed"):
        load(path)
    with pytest.raises(ValueError, match=r"refused.* bytes that are no tensors"):
        load(save({**good, "more": "a" * 10**7}, path))


def test_within_five_seconds_and_two_gigabytes(good, tmp_path):
    """All of them in a process that may take 2 GB more than torch does, and 5 s for each."""
    for case, (change, _) in STRANGERS.items():
        content = copy.deepcopy(good)
        change(content)
        torch.save(content, tmp_path / f"{case}.ckpt")
    script = """
import json, pathlib, resource, signal, sys, time
from imgclf import load
from imgclf.checkpoints.metadata import datamodule_classes, network_classes
network_classes(), datamodule_classes()
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2 * 2**30,) * 2)
told = {}
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.ckpt")):
    start = time.perf_counter()
    signal.alarm(5)
    try:
        load(path)
    except ValueError as error:
        told[path.stem] = str(error), time.perf_counter() - start
signal.alarm(0)
print(json.dumps([told, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told, _ = json.loads(done.stdout)
    assert told.keys() == STRANGERS.keys()
    assert not [line for line, _ in told.values() if "llocat" in line and "fit together" not in line]
    print(f"{len(told)} files refused, the slowest in {max(seconds for _, seconds in told.values()):.2f} s")


@pytest.mark.parametrize("address", ["https://example.org/best.ckpt", "file:///etc/passwd", "s3://bucket/best.ckpt"])
def test_an_address_is_no_file(address):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(address)


def test_a_stranger_does_not_choose_what_is_read(script, good, tmp_path):
    """Its data's place is to be typed, unless a run folder around the file says the same."""
    photographs = tmp_path / "elsewhere"
    photographs.mkdir()
    good[METADATA_KEY]["data"].update(variation="back-image", backgrounds=str(photographs), num_workers=10**6)
    (tmp_path / "run").mkdir()
    path = save(good, tmp_path / "run" / "checkpoints" / "a.ckpt")
    assert read_data_config(path)["num_workers"] == 0
    assert read_data_config(path)["backgrounds"] == "???"
    assert "type data.backgrounds=..." in script("evaluate.py", f"ckpt={path}").error
    assert "elsewhere" in script("evaluate.py", f"ckpt={path}", f"data.backgrounds={photographs}").error
    (tmp_path / "run" / "config.yaml").touch()
    assert read_data_config(path)["backgrounds"] == str(photographs)


def test_class_names_are_shown_as_they_are(script, good, tmp_path):
    good[METADATA_KEY]["class_names"] = ["[red]", "[/]", "$\\bad$", "a/../b", "", *"56789"]
    assert "a class is called ''" in script("evaluate.py", f"ckpt={save(good, tmp_path / 'a.ckpt')}").error
    good[METADATA_KEY]["class_names"] = ["[/]"] * 10
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    result = script("evaluate.py", f"ckpt={save(good, tmp_path / 'a.ckpt')}", "images=a.png")
    assert "a.png: [/] (" in result.out, result.err


def test_missing_file_and_unfitting_weights(good, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "none.ckpt")
    good[METADATA_KEY]["network"]["channels"] = [8]
    with pytest.raises(ValueError, match="do not fit together"):
        load(save(good, tmp_path / "a.ckpt"))

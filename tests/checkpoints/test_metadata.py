import numpy as np
import pytest
import torch
from PIL import Image

from imgclf.checkpoints.files import METADATA_KEY, AtomicCheckpointIO
from imgclf.checkpoints.metadata import (
    build_metadata,
    datamodule_classes,
    network_classes,
    read_data_config,
    rebuild_config,
)
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.digits import Digits
from imgclf.data.image_folder import ImageFolder
from imgclf.data.noisy import NoisyImages
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.models.network import Network


def save(content, path):
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


def test_the_data_of_a_checkpoint_can_be_rebuilt(content, tmp_path):
    config = read_data_config(save(content, tmp_path / "a.ckpt"))
    assert config.pop("_target_") == "imgclf.data.noisy.NoisyImages"
    assert config.pop("data_dir") == "${data_dir}"
    assert (config["base"], config["variation"], config["num_workers"]) == ("digits", "rot", 0)
    assert "augmentation" not in config
    assert NoisyImages(**config).fingerprint("val") == NoisyImages(base="digits", variation="rot").fingerprint("val")
    content[METADATA_KEY]["data"] = None
    assert read_data_config(save(content, tmp_path / "a.ckpt")) == {}


@pytest.mark.parametrize(
    ("make", "base"), [(network_classes, Network), (datamodule_classes, ImageDataModule)], ids=["network", "data"]
)
def test_whitelists_hold_classes_of_our_own_only(make, base):
    names = make()
    assert len(names) >= 4
    for name in names:
        module, _, kind = name.rpartition(".")
        assert module.startswith(("imgclf.models.", "imgclf.data."))
        assert issubclass(vars(__import__(module, fromlist=[kind]))[kind], base)
    assert {"imgclf.models.cnn.CNN", "imgclf.data.noisy.NoisyImages"} & set(names)


def test_metadata_say_how_a_file_becomes_an_input(tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("L", (9, 9)).save(tmp_path / name / "1.png")
    digits = Classifier(CNN(), Digits.class_names)
    two = Classifier(CNN((3, 9, 8), 1, channels=[4]), ["a", "b"])
    for classifier, data, expected in (
        (two, None, ([3, 9, 8], "auto", "light_on_dark")),
        (two, ImageFolder(str(tmp_path), 9), ([3, 9, 9], "image_file", "light_on_dark")),
        (digits, Digits(), ([1, 28, 28], "auto", "light_on_dark")),
        (digits, NoisyImages("digits", "rot-back-rand"), ([1, 28, 28], "auto", "any")),
        (digits, NoisyImages("digits", "rot-back-lined"), ([1, 28, 28], "auto", "dark_on_light")),
    ):
        described = build_metadata(classifier, data)["preprocessing"]
        assert tuple(described[name] for name in ("image_shape", "reader", "polarity")) == expected


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


def test_a_stranger_does_not_choose_what_is_read(script, content, tmp_path):
    """The place of its data is to be typed, unless a run folder around the file says the same."""
    photographs = tmp_path / "elsewhere"
    photographs.mkdir()
    content[METADATA_KEY]["data"].update(variation="back-image", backgrounds=str(photographs), num_workers=10**6)
    (tmp_path / "run").mkdir()
    path = save(content, tmp_path / "run" / "checkpoints" / "a.ckpt")
    assert read_data_config(path)["num_workers"] == 0
    assert read_data_config(path)["backgrounds"] == "???"
    assert "type data.backgrounds=..." in script("evaluate.py", f"ckpt={path}").error
    assert "elsewhere" in script("evaluate.py", f"ckpt={path}", f"data.backgrounds={photographs}").error
    (tmp_path / "run" / "config.yaml").touch()
    assert read_data_config(path)["backgrounds"] == str(photographs)


def test_class_names_are_shown_as_they_are(script, content, tmp_path):
    content[METADATA_KEY]["class_names"] = ["[red]", "[/]", "$\\bad$", "a/../b", "", *"56789"]
    assert "a class is called ''" in script("evaluate.py", f"ckpt={save(content, tmp_path / 'a.ckpt')}").error
    content[METADATA_KEY]["class_names"] = ["[/]"] * 10
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    result = script("evaluate.py", f"ckpt={save(content, tmp_path / 'a.ckpt')}", "images=a.png")
    assert "a.png: [/] (" in result.out, result.err


def test_metadata_are_plain(content, tmp_path):
    path = save(content, tmp_path / "a.ckpt")
    assert torch.load(path, weights_only=True)[METADATA_KEY] == content[METADATA_KEY]

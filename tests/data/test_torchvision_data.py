import hashlib

import numpy as np
import pytest
import torch

from imgclf.data.torchvision_data import PUBLISHED, TorchvisionImages
from tests.conftest import REAL_DATA, needs_real_data, tiny_images, write_idx

SETS = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST", "USPS")


@pytest.mark.parametrize("dataset", SETS)
def test_tiny_files_of_every_layout(dataset, tiny_data):
    data = TorchvisionImages(dataset, tiny_data)
    data.prepare_data()
    for split, count in (("train", 200), ("test", 60)):
        images, labels = data.load(split)
        assert images.shape == (count, 1, 28, 28)
        assert images.dtype == torch.uint8
        assert labels.dtype == torch.int64
        assert labels.tolist() == [i % len(data.class_names) for i in range(count)]
    assert len(data.class_names) == (47 if dataset == "EMNIST" else 10)


def test_images_are_upright_and_unchanged(tiny_data):
    mnist, _ = TorchvisionImages("MNIST", tiny_data).load("test")
    assert np.array_equal(mnist[:, 0].numpy(), tiny_images(60, 10, seed=60)[0])
    emnist, _ = TorchvisionImages("EMNIST", tiny_data).load("test")
    assert np.array_equal(emnist[:, 0].numpy(), tiny_images(60, 47)[0])


def test_emnist_letters_are_26_classes_from_0(tiny_data):
    data = TorchvisionImages("EMNIST", tiny_data, emnist_split="letters")
    _, labels = data.load("train")
    assert labels.min() == 0
    assert labels.max() == 25
    assert list(data.class_names) == [chr(ord("a") + i) for i in range(26)]


def test_missing_files_say_cause_files_place_and_what_runs_offline(tmp_path, monkeypatch):
    import torchvision.datasets

    def offline(self):
        raise RuntimeError("Error downloading x:\nTried https://example.org, got:\n<urlopen error unreachable>")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", offline)
    with pytest.raises(FileNotFoundError) as caught:
        TorchvisionImages("MNIST", tmp_path).prepare_data()
    message = str(caught.value)
    for part in ("unreachable", "train-images-idx3-ubyte", "MNIST/raw", "data=noisy_digits", "IMGCLF_DATA_DIR"):
        assert part in message


DAMAGES = (
    "truncated",
    "empty",
    "wrong magic",
    "header only",
    "half a header",
    "too long",
    "huge",
    "no images",
    "floats",
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(damage, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    for stem in ("train", "t10k"):
        images, labels = tiny_images(40, 10)
        write_idx(raw / f"{stem}-images-idx3-ubyte", images)
        write_idx(raw / f"{stem}-labels-idx1-ubyte", labels)
    file = raw / "train-images-idx3-ubyte"
    good = file.read_bytes()
    file.write_bytes(
        {
            "truncated": good[:-1000],
            "empty": b"",
            "wrong magic": b"\xff\xd8\xff\xe0" + good[4:],
            "header only": good[:16],
            "half a header": good[:10],
            "huge": good[:4] + bytes([255] * 12) + good[16:],  # 2**96 bytes
            "no images": good[:4] + bytes(12),
            "floats": good[:2] + b"\x0d" + good[3:],
            "too long": good + bytes(100),
        }[damage]
    )
    for read in (lambda data: data.load("train"), lambda data: data.prepare_data()):
        with pytest.raises(ValueError, match=r"train-images-idx3-ubyte: damaged.*delete it and run again to fetch it"):
            read(TorchvisionImages("MNIST", tmp_path))


def test_labels_that_do_not_fit_are_refused(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    images, labels = tiny_images(40, 10)
    for stem in ("train", "t10k"):
        write_idx(raw / f"{stem}-images-idx3-ubyte", images)
        write_idx(raw / f"{stem}-labels-idx1-ubyte", labels[:39] if stem == "train" else labels + np.uint8(1))
    data = TorchvisionImages("MNIST", tmp_path)
    with pytest.raises(ValueError, match="40 images but 39 labels"):
        data.load("train")
    with pytest.raises(ValueError, match=r"labels outside 0\.\.9"):
        data.load("test")


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_file_that_is_not_as_it_was_published_is_named(kind, split, tmp_path, caplog):
    data = TorchvisionImages("FashionMNIST", tmp_path)
    for part, count in (("train", 60_000), ("test", 10_000)):
        for file, shape in zip(data.files(part), ((count, 1, 1), (count,)), strict=True):
            write_idx(file, np.zeros(shape, np.uint8))
    wrong = data.files(split)[kind == "labels"]
    right = [file for part in ("train", "test") for file in data.files(part) if file != wrong]
    known = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in (*right, wrong)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PUBLISHED, "FashionMNIST", known)
        data.prepare_data()
        content = bytearray(wrong.read_bytes())
        content[-1] ^= 1
        wrong.write_bytes(content)
        with pytest.raises(ValueError, match=f"{wrong.name}: damaged, not the file as it was published; delete it"):
            data.prepare_data()
        assert caplog.text == ""
        write_idx(wrong, np.zeros((99,) if kind == "labels" else (99, 1, 1), np.uint8))
        data.prepare_data()  # small sets of one's own may be read in its place
        assert f"{wrong}: not the FashionMNIST that was published, 99 of" in caplog.text


def test_unknown_data_set_lists_the_known():
    with pytest.raises(ValueError, match="MNIST, FashionMNIST"):
        TorchvisionImages("CIFAR10")


@needs_real_data
def test_the_real_mnist():
    data = TorchvisionImages("MNIST", REAL_DATA)
    data.prepare_data()
    assert {split: len(data.dataset(split)) for split in ("train", "val", "test")} == {
        "train": 54_000,
        "val": 6_000,
        "test": 10_000,
    }
    mean, deviation = data.mean_and_std()
    assert mean == [pytest.approx(0.1307, abs=2e-3)]
    assert deviation == [pytest.approx(0.3081, abs=2e-3)]

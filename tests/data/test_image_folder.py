import os
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from imgclf.data.image_folder import ImageFolder
from tests.conftest import REAL_DATA, write_xrays

PATIENT = r"person\d+|IM-\d+"


def write(folder, classes=("cat", "dog"), count=20, suffixes=("png",), first=0):
    """``count`` images a class, whose first pixel is their number."""
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = np.full((10 + i, 12), first + 100 * k + i, np.uint8)
            Image.fromarray(image).save(folder / name / f"{i:02}.{suffixes[i % len(suffixes)]}")
    return folder


def folder(where, tmp_path, **options):
    options = {"image_size": 8, "channels": 1, "batch_size": 4, "val_fraction": 0.25, **options}
    return ImageFolder(**{"root": str(where), "cache_dir": str(tmp_path / "cache"), **options})


def contents(data, split) -> list[int]:
    return sorted(data.dataset(split)[:][0][:, 0, 0, 0].tolist())


def test_parts_classes_and_names(tmp_path):
    write(tmp_path / "set" / "train")
    write(tmp_path / "set" / "test", count=5)
    data = folder(tmp_path / "set", tmp_path)
    data.prepare_data()
    data.setup("fit")
    assert data.class_names == ["cat", "dog"]
    assert data.image_shape == (1, 8, 8)
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [30, 10, 10]
    assert sorted(contents(data, "train") + contents(data, "val")) == [*range(20), *range(100, 120)]
    assert contents(data, "test") == [*range(5), *range(100, 105)]
    for split in ("train", "val", "test"):
        images, labels = data.dataset(split)[:]
        for image, label, name in zip(images, labels.tolist(), data.image_names(split), strict=True):
            assert int(image[0, 0, 0]) == 100 * label + int(os.path.basename(name)[:2])
            assert f"/{data.class_names[label]}/" in name


def test_a_folder_without_parts_is_divided_and_its_test_images_are_always_the_same(tmp_path):
    write(tmp_path / "set")
    data = folder(tmp_path / "set", tmp_path)
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [24, 8, 8]
    whole = [contents(data, split) for split in ("train", "val", "test")]
    assert sorted(value for part in whole for value in part) == [*range(20), *range(100, 120)]
    other = folder(tmp_path / "set", tmp_path, split_seed=1)
    assert contents(other, "test") == whole[2]
    assert contents(other, "val") != whole[1]
    assert data.dataset("test").targets.tolist() == [0] * 4 + [1] * 4


def test_files_are_read_as_they_are_elsewhere(tmp_path):
    data = folder(write(tmp_path / "set"), tmp_path, channels=3)
    assert data.preprocessing() == {
        **{"image_shape": [3, 8, 8], "reader": "image_file", "polarity": "light_on_dark"},
        **{"fit": "stretch", "bits": 16},
    }


def test_a_val_folder_is_validation_or_joins_training(tmp_path):
    for part, count in (("train", 20), ("val", 3), ("test", 4)):
        write(tmp_path / "set" / part, count=count)
    data = folder(tmp_path / "set", tmp_path)
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [40, 6, 8]
    labels = data.dataset("train").targets.tolist()
    assert labels != sorted(labels)  # in random order, as everywhere
    joined = folder(tmp_path / "set", tmp_path, val_folder=False)
    assert len(joined.dataset("train")) + len(joined.dataset("val")) == 46
    assert len(joined.dataset("test")) == 8


def test_a_test_folder_alone_can_be_evaluated(tmp_path):
    write(tmp_path / "set" / "test", count=4)
    data = folder(tmp_path / "set", tmp_path)
    data.prepare_data()
    assert len(data.dataset("test")) == 8
    with pytest.raises(FileNotFoundError, match="no train part"):
        data.dataset("train")


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("split_seed", range(4))
def test_no_patient_crosses(split_seed, whole, tmp_path):
    write_xrays(tmp_path / "set" / ("" if whole else "train"), 120)
    if not whole:
        write_xrays(tmp_path / "set" / "test", 20)
    data = folder(tmp_path / "set", tmp_path, group_pattern=PATIENT, split_seed=split_seed)
    splits = ("train", "val", "test") if whole else ("train", "val")  # the official test part is left alone
    patients = [{re.search(PATIENT, name)[0] for name in data.image_names(split)} for split in splits]
    assert all(patients)
    assert len(set.union(*patients)) == sum(map(len, patients)) == 60
    for split in splits:
        assert 0.3 < float(data.dataset(split).targets.double().mean()) < 0.7


@pytest.mark.skipif(
    not (REAL_DATA and os.path.isdir(os.path.join(REAL_DATA, "chest_xray"))),
    reason="needs the real chest X-rays: set IMGCLF_DATA_DIR to the folder that holds chest_xray",
)
def test_no_patient_crosses_in_the_real_chest_x_rays(tmp_path):
    strict = r"person\d+|NORMAL2-IM-\d+|IM-\d+"
    data = ImageFolder(
        "chest_xray", 16, 1, group_pattern=PATIENT, val_fraction=0.2, val_folder=False, data_dir=REAL_DATA,
        cache_dir=str(tmp_path),
    )  # fmt: skip
    train, val = (
        {re.search(strict, os.path.basename(name))[0] for name in data.image_names(s)} for s in ("train", "val")
    )
    assert not train & val
    assert len(data.dataset("train")) + len(data.dataset("val")) == 5216
    assert len(data.dataset("val")) == pytest.approx(0.2 * 5216, rel=0.02)
    assert float(data.dataset("val").targets.double().mean()) == pytest.approx(3875 / 5216, abs=0.01)
    assert torch.bincount(data.dataset("test").targets).tolist() == [234, 390]


def test_the_positive_class_comes_last(tmp_path):
    write(tmp_path / "set")
    data = folder(tmp_path / "set", tmp_path, positive="cat")
    assert data.class_names == ["dog", "cat"]
    images, labels = data.dataset("test")[:]
    assert ((images[:, 0, 0, 0] < 100) == (labels == 1)).all()
    with pytest.raises(ValueError, match=r"^positive=cow: .*cat, dog"):
        folder(tmp_path / "set", tmp_path, positive="cow").prepare_data()


def test_balance(tmp_path):
    write(tmp_path / "set" / "train", ("a",), 30)
    write(tmp_path / "set" / "train", ("b",), 10, first=100)
    write(tmp_path / "set" / "test", ("a", "b"), 2)
    plain, weighted, sampled = (
        folder(tmp_path / "set", tmp_path, balance=balance) for balance in ("none", "weighted_loss", "sampler")
    )
    counts = torch.bincount(plain.dataset("train").targets).double()
    assert plain.class_weights() is None
    assert sampled.class_weights() is None
    weights = torch.tensor(weighted.class_weights(), dtype=torch.float64)
    torch.testing.assert_close(weights * counts, torch.full((2,), float(counts.sum() / 2), dtype=torch.float64))

    def drawn(data, epoch):
        data.trainer = None
        sampler = data.train_dataloader().sampler
        data.trainer = SimpleNamespace(current_epoch=epoch, fit_loop=SimpleNamespace(restarting=False))
        return torch.cat(list(sampler))

    targets = sampled.dataset("train").targets
    draws = [drawn(sampled, epoch) for epoch in range(40)]
    assert float(torch.cat([targets[rows] for rows in draws]).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(draws[3], drawn(sampled, 3))
    assert not torch.equal(draws[3], draws[4])
    assert sorted(drawn(plain, 0).tolist()) == list(range(30))
    with pytest.raises(ValueError, match=r"^balance=some"):
        folder(tmp_path / "set", tmp_path, balance="some")


def test_bad_files_stop_it_or_are_left_out(tmp_path):
    root = write(tmp_path / "set" / "train")
    write(tmp_path / "set" / "test", count=4)
    (root / "cat" / "03.png").write_text("no picture")
    (root / "dog" / "07.png").write_bytes(b"")
    (root / "dog" / "08.png").write_bytes((root / "dog" / "09.png").read_bytes()[:45])
    (root / "dog" / "notes.txt").write_text("is left alone")
    (root.parent / "test" / "dog" / "01.png").write_text("no picture")
    with pytest.raises(ValueError, match="4 of 48 images cannot be read") as error:
        folder(root.parent, tmp_path).prepare_data()
    for part in ("test/dog/01.png (", "train/cat/03.png (", "dog/07.png (", "dog/08.png (", "skip_bad=true"):
        assert part in str(error.value)
    data = folder(root.parent, tmp_path, skip_bad=True)
    data.prepare_data()
    assert "left out 3 of 40 train images that cannot be read" in data.notes
    assert "passed over 1 files that are not read as images: 1 .txt" in data.notes
    together = sorted(contents(data, "train") + contents(data, "val"))
    assert together == sorted({*range(20), *range(100, 120)} - {3, 107, 108})


def test_file_names_in_any_script(tmp_path):
    root = write(tmp_path / "a folder, ünïcode")
    for i, name in enumerate(("数字 7.png", "é.png", "e\u0301.png", "a\nb.png", "x=1,y.png", os.fsdecode(b"\xff.png"))):
        Image.new("L", (9, 9), 50 + i).save(root / "cat" / name)
    data = folder(root, tmp_path)
    data.prepare_data()
    assert sum(len(data.dataset(split)) for split in ("train", "val", "test")) == 46


def test_links(tmp_path):
    root = write(tmp_path / "set")
    (root / "cat" / "circle").symlink_to(root / "cat")
    (root / "dog" / "linked.png").symlink_to(root / "cat" / "00.png")
    assert len(folder(root, tmp_path).parts["whole"]) == 41
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    with pytest.raises(ValueError, match=r"1 of 42 images cannot be read: dog/gone\.png"):
        folder(root, tmp_path).prepare_data()
    (root / "whole").symlink_to(root)
    with pytest.raises(ValueError, match="whole: this link leads to a folder that it lies in"):
        folder(root, tmp_path).prepare_data()


@pytest.mark.parametrize(
    ("damage", "options", "message"),
    [
        (lambda root: shutil.rmtree(root), {}, "^root=.*set: no such folder"),
        (lambda root: (root / "train" / "cow").mkdir(), {}, r"cow: a class folder without images"),
        (lambda root: (root / "test" / "dog").rename(root / "test" / "cow"), {}, "test/ .* cow, which train/ lacks"),
        (lambda root: [shutil.rmtree(root / p / "dog") for p in ("train", "test")], {}, "two class folders or more"),
        (lambda root: [shutil.rmtree(root / p) for p in ("train", "test")], {}, "found none"),
        (lambda root: None, {"group_pattern": r"patient\d+"}, r"^group_pattern=patient\\d\+: .*no file, such as"),
        (lambda root: None, {"group_pattern": "["}, r"^group_pattern=\[: .*no regular expression"),
        (lambda root: None, {"channels": 2}, "^channels=2: .*1, 3"),
        (lambda root: None, {"image_size": 0}, "^image_size=0"),
        (lambda root: None, {"test_fraction": 1.5}, r"^test_fraction=1\.5"),
        (lambda root: None, {"label_pattern": "("}, r"^label_pattern=\(: .*no regular expression"),
        (lambda root: None, {"label_pattern": "cow"}, "^label_pattern=cow: .*no file, such as"),
        (lambda root: None, {"image_size": [8]}, r"^image_size=\[8\]"),
        (lambda root: None, {"fit": "squash"}, "^fit=squash: .*stretch, pad, crop"),
        (lambda root: None, {"labels": "none.csv"}, "labels=.*none.csv: no such table"),
        (lambda root: None, {"root": None}, "^root=None: .*root=DIR"),
        (lambda root: None, {"skip_bad": "maybe"}, "^skip_bad=maybe: .*true or false"),
    ],
)
def test_bad_folders_and_options(damage, options, message, tmp_path):
    root = tmp_path / "set"
    for part in ("train", "test"):
        write(root / part, count=6)
    damage(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        folder(root, tmp_path, **options).dataset("val")


def test_a_root_may_lie_in_the_data_dir(tmp_path, monkeypatch):
    write(tmp_path / "store" / "set", count=6)
    monkeypatch.chdir(tmp_path)
    assert folder("set", tmp_path, data_dir="store").class_names == ["cat", "dog"]

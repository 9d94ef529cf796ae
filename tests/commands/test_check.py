import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from imgclf.check import PUBLISHED
from imgclf.checkpoints.files import METADATA_KEY
from imgclf.checkpoints.metadata import changed_splits
from imgclf.data.datasets import ImageDataset
from imgclf.data.image_folder import ImageFolder
from tests.conftest import options


@pytest.fixture
def check(script):
    return lambda *words: script("imgclf/check.py", *words)


@pytest.fixture
def folder(tmp_path):
    """A clean data set: two images of each of 15 patients and class to train with, of 5 others to test with."""
    random = np.random.default_rng(0)
    for part, patients in (("train", range(15)), ("test", range(15, 20))):
        for kind in ("ill", "well"):
            (tmp_path / "set" / part / kind).mkdir(parents=True)
            for patient in patients:
                for view in "ab":
                    image = Image.fromarray(random.integers(0, 255, (8, 8), dtype=np.uint8))
                    image.save(tmp_path / "set" / part / kind / f"p{patient:02}_{kind}_{view}.png")
    return tmp_path / "set"


WORDS = ("data=image_folder", "data.root=set", "data.image_size=8", "data.channels=1", "data.group_pattern=p\\d+")


def test_a_clean_folder(check, folder, tmp_path):
    result = check(*WORDS)
    assert (result.code, result.err) == (0, "")
    lines = [line.split() for line in result.out.splitlines()]
    assert ["ill", "24", "6", "10"] in lines
    assert ["all", "48", "12", "20"] in lines
    assert "no copies, nothing in two splits, nothing unreadable" in result.out
    assert os.listdir(tmp_path) == ["set"]


def test_everything_that_is_wrong_is_found_at_once(check, folder):
    train, test = folder / "train", folder / "test"
    (train / "ill" / "p00_ill_a.png").write_text("no image")
    (test / "well" / "p15_well_a.png").write_bytes(b"")
    shutil.copy(train / "ill" / "p01_ill_a.png", train / "ill" / "p01_ill_copy.png")
    shutil.copy(train / "ill" / "p02_ill_a.png", test / "ill" / "new.png")
    shutil.copy(test / "ill" / "p16_ill_a.png", test / "well" / "p16_well_c.png")
    image = Image.new("L", (8, 8), 77)
    image.save(test / "ill" / "p03_ill_c.png")
    image.putpixel((7, 7), 78)
    image.save(test / "ill" / "p03_ill_d.png")  # nearly a copy is none
    result = check(*WORDS)
    out = result.out
    assert "2 files cannot be read\n  train/ill/p00_ill_a.png (not a" in out
    assert "  test/well/p15_well_a.png (not a" in out
    assert "1 images of train are copies of others there\n" in out or "1 images of val are copies of others" in out
    assert out.count("p01_ill_copy.png") == 1
    assert "1 images of test are copies of others there\n" in out
    assert "1 images of test are in train or val too\n" in out
    assert any("new.png = " in line and "p02_ill_a.png" in line for line in out.splitlines())
    assert "1 patients of test (2 images) are in train or val too, by data.group_pattern\n  p03\n" in out
    assert "1 images have one label here and another there\n" in out
    assert any("p16_ill_a.png (ill) = test " in line and "p16_well_c.png (well)" in line for line in out.splitlines())
    assert result.error == (
        "error: data=image_folder: 2 files cannot be read; 1 images of test are in train or val too; 1 patients of "
        "test (2 images) are in train or val too, by data.group_pattern: results would not be worth trusting"
    )
    assert check(*WORDS, "data.skip_bad=true").error.startswith("error: data=image_folder: 1 images of test are in")


def test_what_is_odd_within_a_split_and_unreadable_files_to_be_left_out_are_remarks(check, folder):
    shutil.copy(folder / "test" / "ill" / "p16_ill_a.png", folder / "test" / "well" / "p16_well_c.png")
    (folder / "train" / "ill" / "p00_ill_a.png").write_text("no image")
    result = check(*WORDS, "data.skip_bad=true")
    assert (result.code, result.err) == (0, "")
    for remark in ("1 files cannot be read", "1 images of test are copies", "1 images have one label here and another"):
        assert remark in result.out


def test_parts_that_are_published_are_not_held_against_a_set(check, tiny_data):
    assert set(PUBLISHED) == set(options("data")) - {"amat", "digits", "noisy_digits", "image_folder"}
    result = check("data=chest_xray", f"data_dir={tiny_data}")
    assert (result.code, result.err) == (0, "")
    assert "(30 images) are in train or val too, by data.group_pattern (so its authors divided it)" in result.out
    own = check("data=chest_xray", f"data.root={tiny_data}/chest_xray")
    assert "(30 images) are in train or val too, by data.group_pattern: results would not be" in own.error


@pytest.mark.parametrize("name", ["digits", "noisy_digits", "mnist", "emnist", "usps"])
def test_data_in_memory(name, check, tiny_data):
    result = check(f"data={name}", f"data_dir={tiny_data}")
    assert (result.code, result.err) == (0, "")
    assert "fingerprint" in result.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=nothing"], "data=nothing: choose one of amat"),
        (["data.rot=1"], "unknown option data.rot"),
        (["-m", "data=mnist"], "-m"),
        (["data=image_folder"], "name the folder of images"),
        (["data=image_folder", "data.root=nowhere"], "data.root=nowhere: no such folder"),
        (["data._target_=os.system"], "os.system"),
    ],
)
def test_bad_input_gets_one_line(words, message, check):
    assert message in check(*words).error


def test_help(check):
    result = check("--help")
    assert result.code == 0
    assert "python -m imgclf.check data=chest_xray" in result.out


def fingerprints(root, cache, **arguments) -> dict[str, str]:
    data = ImageFolder(str(root), 8, 1, cache_dir=str(cache), **arguments)
    data.prepare_data()
    data.setup("fit")
    return data.fingerprints()


def test_a_fingerprint_is_of_content_alone(folder, tmp_path, monkeypatch):
    first = fingerprints(folder, tmp_path / "cache", batch_size=9)
    assert set(first) == {"train", "val", "test"}
    assert len(set(first.values())) == 3
    assert fingerprints(folder, tmp_path / "cache", batch_size=3) == first
    copy = shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copy)  # with other times
    assert fingerprints(copy, tmp_path / "cache", batch_size=9) == first
    (tmp_path / "cache").rename(tmp_path / "gone")
    with monkeypatch.context() as patch:  # nothing is read that has not just been decoded
        patch.setattr(ImageDataset, "__getitem__", None)
        assert fingerprints(copy, tmp_path / "cache", batch_size=9) == first

    def changed() -> set[str]:
        now = fingerprints(copy, tmp_path / "cache", batch_size=9)
        return {split for split in first if now[split] != first[split]}

    Image.new("L", (8, 8)).save(copy / "test" / "ill" / "p15_ill_a.png")
    assert changed() == {"test"}
    (copy / "test" / "ill" / "p15_ill_b.png").rename(copy / "test" / "well" / "p15_ill_b.png")
    (copy / "train" / "well").rename(copy / "train" / "good")
    (copy / "test" / "well").rename(copy / "test" / "good")
    assert changed() == {"train", "val", "test"}


def test_a_run_knows_its_data_again(folder, train, script, tmp_path):
    words = (*WORDS, "data.batch_size=9", "model=mlp", "model.hidden=[4]", "hydra.run.dir=run")
    train(*words).ok()
    best = tmp_path / "run" / "checkpoints" / "best.ckpt"
    card = torch.load(best, weights_only=True)[METADATA_KEY]
    assert card["fingerprints"] == fingerprints(
        folder, tmp_path / "cache", batch_size=9, group_pattern=r"p\d+", val_fraction=0.2
    )

    def changed() -> list[str]:
        options = {"batch_size": 9, "val_fraction": 0.2, "group_pattern": r"p\d+", "cache_dir": str(tmp_path / "cache")}
        return changed_splits(card, ImageFolder(str(folder), 8, 1, **options))

    assert changed() == []
    Image.new("L", (8, 8)).save(folder / "train" / "ill" / "p03_ill_a.png")
    Image.new("L", (8, 8)).save(folder / "test" / "ill" / "p15_ill_a.png")
    kept = [path for path in (tmp_path / "run").rglob("*") if path.is_file() and path.name != "train.log"]
    before = [path.read_bytes() for path in kept]
    error = train(*words, "resume=true", "trainer.max_epochs=2").error
    assert "cannot be resumed: the " in error
    assert "test images" in error
    assert [path.read_bytes() for path in kept] == before
    warned = script("evaluate.py", f"ckpt={best}").ok()
    assert "and test images" in warned.out
    meant = script("evaluate.py", f"ckpt={best}", "data.root=set").ok()
    assert "and test images" not in meant.out

    (folder / "train").rename(tmp_path / "away")
    Image.new("L", (8, 8), 9).save(folder / "test" / "ill" / "p15_ill_a.png")
    assert changed() == ["test"]  # where those are all there is, the others are not asked for

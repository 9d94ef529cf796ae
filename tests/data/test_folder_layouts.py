"""The layouts of folders that people have."""

import numpy as np
import pytest
from PIL import Image

from imgclf.data.folder_scan import part_of_name
from imgclf.data.image_folder import ImageFolder


def write(folder, names=("x", "y"), count=12, seed=0, suffix=".png"):
    """Images of noise around a grey level of each class; no two are equal."""
    for k, name in enumerate(names):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            values = np.random.default_rng([seed, k, i]).integers(0, 255, (9, 9), dtype=np.uint8)
            Image.fromarray(values).save(folder / name / f"{seed}_{i:02}{suffix}")
    return folder


def load(root, **options):
    options = {"image_size": 8, "channels": 1, "val_fraction": 0.25, "cache_dir": str(root.parent / "cache"), **options}
    data = ImageFolder(str(root), **options)
    data.prepare_data()
    data.setup("fit")
    return data


def sizes(data):
    return {split: len(data.dataset(split)) for split in data.splits}


def said(data, *parts):
    lines = data.remarks()
    return any(all(part in line for part in parts) for line in lines)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("TRAIN", "train"), ("Training", "train"), ("training_set", "train"), ("train-images", "train"),
        ("valid", "val"), ("Validation", "val"), ("dev", "val"), ("test_set", "test"), ("Testing", "test"),
        ("trainer", None), ("tests2", None), ("cats", None), ("set", None),
    ],
)  # fmt: skip
def test_parts_are_understood(name, part):
    assert part_of_name(name) == part


def test_parts_by_other_names_are_taken_and_said(tmp_path):
    root = tmp_path / "set"
    for name, seed in (("Training", 0), ("valid", 1), ("TEST", 2)):
        write(root / name, seed=seed, count=6)
    data = load(root)
    assert data.class_names == ["x", "y"]
    assert sizes(data) == {"train": 12, "val": 12, "test": 12}
    assert said(data, "Training/ as train", "valid/ as val", "TEST/ as test")


def test_two_folders_for_one_part_are_refused(tmp_path):
    for name in ("train", "val", "valid"):
        write(tmp_path / "set" / name)
    with pytest.raises(ValueError, match=r"val/ and valid/ both mean val"):
        load(tmp_path / "set")


def test_without_a_test_part_the_others_are_used(tmp_path):
    root = tmp_path / "set"
    write(root / "train", count=20), write(root / "val", count=4, seed=1)
    data = load(root)
    assert sizes(data) == {"train": 40, "val": 8}
    assert said(data, "no test part", "test_fraction")
    with pytest.raises(FileNotFoundError, match="no test part"):
        data.dataset("test")
    held_out = load(root, test_fraction=0.25)
    assert sizes(held_out) == {"train": 30, "val": 8, "test": 10}
    assert not set(held_out.image_names("test")) & set(held_out.image_names("train"))


def test_all_of_an_undivided_folder_can_be_tested_on(tmp_path):
    data = ImageFolder(str(write(tmp_path / "set")), 8, 1, test_fraction=1.0, cache_dir=str(tmp_path / "cache"))
    assert data.splits == ("test",)
    assert len(data.dataset("test")) == 24


def test_other_folders_with_images_are_named(tmp_path):
    root = tmp_path / "set"
    write(root / "train"), write(root / "test", seed=1), write(root, ("unlabelled",), 5, seed=2)
    (root / "papers").mkdir()
    data = load(root)
    assert said(data, "passed over unlabelled/ with 5 images")
    assert not said(data, "papers")


def test_a_set_within_itself_is_refused(tmp_path):
    root = write(tmp_path / "set", ("sick", "well"))
    write(root / "copy", ("sick", "well"))
    with pytest.raises(ValueError, match=r"copy holds folders called sick, well, .*root=.*copy"):
        load(root)
    write(tmp_path / "outer" / "inner", ("sick", "well"))
    with pytest.raises(ValueError, match=r"found inner.*did you mean root=.*inner"):
        load(tmp_path / "outer")


def test_a_test_part_without_classes_is_left_for_prediction(tmp_path):
    root = tmp_path / "set"
    write(root / "train"), write(root, ("test",), 5, seed=1)
    data = load(root)
    assert data.splits == ("train", "val")
    assert said(data, "passed over test/", "images=")


def test_a_class_may_lack_in_a_part(tmp_path):
    root = tmp_path / "set"
    write(root / "train", ("a", "b", "c")), write(root / "test", ("a", "c"), seed=1)
    (root / "test" / "b").mkdir()
    data = load(root)
    assert data.class_names == ["a", "b", "c"]
    assert sorted(set(data.dataset("test").targets.tolist())) == [0, 2]
    assert said(data, "test has no images of b")


def test_what_programs_leave_is_passed_over(tmp_path):
    root = write(tmp_path / "set")
    for place in (root / "x", root):
        write(place, (".ipynb_checkpoints", "@eaDir", "__MACOSX", ".thumbnails"), 3, seed=1)
    Image.new("L", (5, 5)).save(root / "x" / "._1.png")
    (root / "y" / "Thumbs.db").write_text("x")
    data = load(root)
    assert data.class_names == ["x", "y"]
    assert sum(sizes(data).values()) == 24
    assert not said(data, "passed over")


def test_files_of_other_formats_are_counted(tmp_path):
    root = write(tmp_path / "set")
    for i in range(3):
        (root / "x" / f"{i}.mov").write_text("film")
    (root / "y" / "notes").write_text("text")
    assert said(load(root), "passed over 4 files", "3 .mov", "1 without an ending")


def test_formats_of_phones_and_browsers_are_read(tmp_path):
    root = write(tmp_path / "set")
    for i, suffix in enumerate((".jfif", ".JPE", ".gif", ".ppm", ".pgm")):
        kind = {".gif": "GIF", ".ppm": "PPM", ".pgm": "PPM"}.get(suffix, "JPEG")
        Image.new("L", (9, 9), 40 * i).save(root / "x" / f"more{suffix}", format=kind)
    assert sum(sizes(load(root)).values()) == 29


def test_numbered_classes_come_in_the_order_of_their_numbers(tmp_path):
    data = load(write(tmp_path / "set", [str(number) for number in range(1, 13)], 5))
    assert data.class_names == [str(number) for number in range(1, 13)]


def test_links_to_folders_are_followed_once(tmp_path):
    root = write(tmp_path / "set")
    elsewhere = write(tmp_path / "elsewhere", ("more",), 5, seed=3)
    (root / "x" / "link").symlink_to(elsewhere / "more")
    (root / "x" / "circle").symlink_to(root / "x")
    assert sum(sizes(load(root)).values()) == 29


def test_a_batch_is_no_larger_than_the_set_and_few_validation_images_are_said(tmp_path):
    data = load(write(tmp_path / "set", count=5), batch_size=32)
    assert data.batch_size == len(data.dataset("train"))
    assert said(data, "batch_size=32")
    assert said(data, "only 2 images are for validation")


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 12), (".tif", 12), (".png", 8)])
def test_the_bits_in_use_are_found_in_the_training_part(tmp_path, suffix, bits):
    white = 2**bits - 1
    for part, largest in (("train", white - 15), ("test", white // 4)):
        for k, name in enumerate(("x", "y")):
            (tmp_path / "set" / part / name).mkdir(parents=True)
            for i in range(4):
                values = np.full((9, 9), largest // (2 - k) - i, np.uint16)
                Image.fromarray(values).save(tmp_path / "set" / part / name / f"{i}{suffix}")
    data = load(tmp_path / "set")
    assert data.preprocessing()["bits"] == bits
    assert said(data, f"{white} is read as white")
    assert int(data.dataset("test")[:][0].max()) == white // 4 * 255 // white
    assert load(tmp_path / "set").preprocessing()["bits"] == bits  # from the cache


@pytest.mark.parametrize(("fit", "corner", "middle"), [("stretch", 200, 200), ("pad", 0, 200), ("crop", 200, 200)])
def test_images_of_another_aspect_ratio(tmp_path, fit, corner, middle):
    for k, name in enumerate(("x", "y")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (40, 10), 200 + 5 * k + i).save(tmp_path / "set" / name / f"{i}.png")
    data = load(tmp_path / "set", image_size=[12, 20], fit=fit)
    image = data.dataset("train").images[0, 0]
    assert data.image_shape == (1, 12, 20)
    assert (int(image[0, 0]) // 10 * 10, int(image[6, 10]) // 10 * 10) == (corner, middle)
    assert data.preprocessing()["fit"] == fit

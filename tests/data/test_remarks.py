import numpy as np
import pytest
from PIL import Image

from imgclf.data.digits import Digits
from imgclf.data.image_folder import ImageFolder


@pytest.fixture
def write(tmp_path):
    """Writes images of noise: the names of the files of each class, and what is drawn into all of them."""

    def write(classes, mode="RGB", root="set"):
        for k, (name, files) in enumerate(classes.items()):
            (tmp_path / root / name).mkdir(parents=True, exist_ok=True)
            for i, file in enumerate(files):
                values = np.random.default_rng([k, i]).integers(0, 255, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(values).convert("L" if mode == "L" else "RGB").save(tmp_path / root / name / file)
        return tmp_path / root

    return write


def numbered(count, form="{}.png"):
    return [form.format(i) for i in range(count)]


def remarks(root, **options):
    data = ImageFolder(str(root), 8, cache_dir=str(root.parent / "cache"), **{"batch_size": 4, **options})
    data.prepare_data()
    data.setup("fit")
    return data.remarks()


def test_nothing_is_said_of_a_clean_set(write):
    assert remarks(write({"a": numbered(320), "b": numbered(330)})) == []
    data = Digits()
    data.prepare_data()
    assert data.remarks() == []


def test_unequal_classes(write):
    root = write({"rare": numbered(40), "usual": numbered(600)})
    (line,) = remarks(root)
    assert line.startswith("94% of the training images are usual")
    assert "balance=sampler or weighted_loss" in line
    assert remarks(root, balance="sampler") == []


def test_few_validation_images(write):
    (line,) = remarks(write({"a": numbered(50), "b": numbered(50)}))
    assert line.startswith("only 8 images are for validation")
    assert "12.5%" in line


def test_grey_images_in_colour_files(write):
    root = write({"a": numbered(320), "b": numbered(330)}, mode="L")
    (line,) = remarks(root)
    assert "channels=1" in line
    assert remarks(root, channels=1) == []


def test_classes_that_differ_in_case_only(write):
    assert any("Cat and cat" in line for line in remarks(write({"Cat": numbered(320), "cat": numbered(330)})))


def test_names_like_patients(write):
    files = [f"person{i // 3}_scan{i}.png" for i in range(330)]
    root = write({"a": files, "b": [file.replace("person", "person9") for file in files]})
    (line,) = remarks(root)
    assert "group_pattern" in line
    assert remarks(root, group_pattern=r"person\d+") == []


def test_copies(write):
    root = write({"a": numbered(320), "b": numbered(330)})
    for i in range(5):
        (root / "a" / f"copy{i}.png").write_bytes((root / "a" / f"{i}.png").read_bytes())
    (line,) = remarks(root)
    assert line.startswith("5 images are copies of others")
    (root / "b" / "copy.png").write_bytes((root / "a" / "0.png").read_bytes())
    assert any("1 images have one label here and another there" in line for line in remarks(root))


def test_copies_in_two_parts_of_the_user(write):
    train = write({"a": numbered(320), "b": numbered(330)}, root="set/train")
    test = write({"a": ["0.png"], "b": ["9.png"]}, root="set/test")
    (test / "b" / "9.png").write_bytes((train / "b" / "9.png").read_bytes())
    (line,) = remarks(train.parent)
    assert line.startswith("2 images are in several of train")
    assert "test" in line

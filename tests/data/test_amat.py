import numpy as np
import pytest
import torch

from imgclf.data import amat
from imgclf.data.amat import AmatImages


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    return np.concatenate([random.random((30, 784)).round(4), random.integers(0, 10, (30, 1))], 1)


def write(path, rows):
    np.savetxt(path, rows, "%.6g")
    return str(path)


def data(tmp_path, train, test=None, **options):
    return AmatImages(train, test, cache_dir=str(tmp_path / "cache"), **{"val_images": 5, **options})


def test_pixels_labels_and_splits(rows, tmp_path):
    module = data(tmp_path, write(tmp_path / "a.amat", rows), write(tmp_path / "b.amat", rows[:7]))
    module.prepare_data()
    assert {split: len(module.dataset(split)) for split in module.splits} == {"train": 25, "val": 5, "test": 7}
    images, labels = module.dataset("val")[:]
    expected = (rows[25:, :-1] * 255).round().reshape(5, 1, 28, 28)
    assert np.abs(images.numpy() - expected).max() <= 1
    assert labels.tolist() == rows[25:, -1].tolist()
    turned = data(tmp_path, str(tmp_path / "a.amat"), transpose=True)
    assert torch.equal(turned.dataset("val")[:][0], images.mT)


def test_a_file_is_read_once_until_it_changes(rows, tmp_path, monkeypatch):
    file = write(tmp_path / "a.amat", rows)
    data(tmp_path, file).prepare_data()
    read = amat._read
    monkeypatch.setattr(amat, "_read", lambda path: pytest.fail("read again"))
    assert len(data(tmp_path, file).dataset("train")) == 25
    monkeypatch.setattr(amat, "_read", read)
    write(tmp_path / "a.amat", rows[:20])
    assert len(data(tmp_path, file).dataset("train")) == 15


def test_one_part_is_enough(rows, tmp_path):
    only_test = data(tmp_path, None, write(tmp_path / "b.amat", rows))
    only_test.prepare_data()
    assert only_test.splits == ("test",)
    with pytest.raises(FileNotFoundError, match="train=None: name the file"):
        only_test.dataset("train")
    only_train = data(tmp_path, write(tmp_path / "a.amat", rows))
    only_train.prepare_data()
    assert only_train.splits == ("train", "val")


def test_bad_input(rows, tmp_path):
    with pytest.raises(ValueError, match=r"train=None: .*train=FILE test=FILE"):
        data(tmp_path, None)
    with pytest.raises(FileNotFoundError, match=r"train=none\.amat: no such file"):
        data(tmp_path, "none.amat").prepare_data()
    with pytest.raises(ValueError, match="val_images=30: the training file has 30 images"):
        data(tmp_path, write(tmp_path / "a.amat", rows), val_images=30).dataset("val")
    bright, label, few = rows.copy(), rows.copy(), rows[:, 1:]
    bright[3, 5], label[4, -1] = 1.5, 10
    for wrong, message in ((bright, "line 4: pixels"), (label, "line 5: .*label"), (few, "line 1 has 784 numbers")):
        with pytest.raises(ValueError, match=rf"wrong\.amat: {message}"):
            data(tmp_path, write(tmp_path / "wrong.amat", wrong)).prepare_data()
    good = (tmp_path / "a.amat").read_text().splitlines()[0]
    for text, message in (
        (f"{good}\n\n{good} 1\n{good}", "line 3 has 786 numbers, not 785"),
        (f"{good}\nx{good}", "line 2: .*could not convert"),
        (good.replace(" ", ","), "line 1 has 1 numbers, not 785"),
        ("", "no images"),
    ):
        (tmp_path / "odd.amat").write_text(text)
        with pytest.raises(ValueError, match=rf"odd\.amat: .*{message}"):
            data(tmp_path, str(tmp_path / "odd.amat")).prepare_data()

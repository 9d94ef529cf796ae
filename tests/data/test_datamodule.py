import pytest
import torch

from imgclf.data.digits import Digits
from tests.data.counted import Counted, numbers


@pytest.mark.parametrize("split_seed", [0, 1, 2])
@pytest.mark.parametrize("val_fraction", [0.1, 0.25, 0.5])
def test_splits_are_disjoint_stratified_and_fixed(split_seed, val_fraction):
    data = Counted(split_seed=split_seed, val_fraction=val_fraction, batch_size=10)
    train, val = numbers(data.dataset("train")), numbers(data.dataset("val"))
    assert sorted(train + val) == list(range(100))
    assert len(val) == round(100 * val_fraction)
    assert abs(data.dataset("val").targets.double().mean() - 0.5) < 0.021
    again = Counted(split_seed=split_seed, val_fraction=val_fraction, batch_size=10, seed=99)
    assert numbers(again.dataset("val")) == val
    assert numbers(Counted(split_seed=split_seed + 10).dataset("val")) != numbers(Counted().dataset("val"))


def test_setup_for_fit_reads_training_data_once_and_never_the_test_part():
    data = Counted(batch_size=10)
    data.setup("fit")
    data.setup("fit")
    data.mean_and_std()
    assert data.reads == ["train"]
    data.dataset("test")
    assert data.reads == ["train", "test"]


def test_statistics_are_those_of_the_training_images():
    data = Counted()
    pixels = data.dataset("train")[:][0].double() / 255
    mean, deviation = data.mean_and_std()
    assert mean == [pytest.approx(float(pixels.mean()))]
    assert deviation == [pytest.approx(float(pixels.std()))]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"eval_batch_size": -1}, "eval_batch_size=-1"),
        ({"val_fraction": 0.0}, "val_fraction=0"),
        ({"val_fraction": 1.0}, "val_fraction=1"),
        ({"val_fraction": float("nan")}, "val_fraction=nan"),
        ({"seed": 2**32}, "seed=4294967296"),
        ({"split_seed": 1.5}, r"split_seed=1\.5"),
        ({"num_workers": 513}, "num_workers=513: .*512"),
        ({"balance": "some"}, "balance=some: .*none, weighted_loss, sampler"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Counted(**options)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]), r"labels outside 0\.\.1"),
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, -1, 0]), r"labels outside 0\.\.1"),
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1]), "4 images but 3 labels"),
        (torch.zeros(0, 1, 2, 2, dtype=torch.uint8), torch.tensor([], dtype=torch.int64), "0 images but 0 labels"),
        (torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 1, 0]), "images must be uint8"),
        (torch.zeros(4, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]), "images must be uint8"),
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0.0, 1, 1, 0]), "labels int64"),
    ],
)
def test_images_and_labels_that_do_not_fit_together_are_refused(images, labels, message, monkeypatch):
    monkeypatch.setattr(Counted, "load", lambda self, split: (images, labels))
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=f"the {split} part of the data: .*{message}"):
            Counted().dataset(split)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"^val_fraction=0\.999: .*empty"):
        Counted(val_fraction=0.999).dataset("val")
    assert len(Counted(val_fraction=0.001).dataset("val")) == 1
    with pytest.raises(ValueError, match=r"split=validation: .*train, val, test"):
        Counted().dataset("validation")


def test_a_batch_is_at_most_the_training_images():
    data = Counted(batch_size=91)
    data.setup("fit")
    assert data.batch_size == 90
    assert any("batch_size=91" in note for note in data.notes)


def test_digits_look_like_mnist_s():
    data = Digits()
    counts = {split: len(data.dataset(split)) for split in ("train", "val", "test")}
    assert counts == {"train": 1293, "val": 144, "test": 360}
    assert data.image_shape == (1, 28, 28)
    images = data.dataset("train")[:][0]
    assert images.dtype == torch.uint8
    assert images.max() == 255
    assert not images[..., :4].any()
    assert not images[..., -4:].any()


def test_preprocessing_is_kept_in_plain_types():
    plain = {"reader": "auto", "polarity": "light_on_dark", "fit": "stretch", "bits": 16, "image_shape": [1, 28, 28]}
    assert Digits().preprocessing() == plain

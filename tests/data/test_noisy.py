import pytest
import torch

from imgclf.core import rng
from imgclf.data.noisy import NoisyImages
from imgclf.transforms.compose import Compose
from imgclf.transforms.spatial import ElasticDeformation, RandomAffine
from imgclf.transforms.variations import VARIATIONS

# Mean and deviation of the test images of base=digits: published figures stay comparable only while these stay.
EVALUATION_SETS = {
    "basic": (40.545, 76.028),
    "rot": (40.531, 73.979),
    "back-rand": (147.771, 76.212),
    "back-image": (147.878, 58.384),
    "back-white": (182.216, 48.849),
    "back-lined": (178.644, 49.435),
    "back-squared": (173.790, 49.410),
    "rot-back-rand": (147.726, 75.475),
    "rot-back-image": (149.233, 57.457),
    "rot-back-white": (180.798, 47.886),
    "rot-back-lined": (177.527, 47.796),
    "rot-back-squared": (172.755, 48.432),
}


def noisy(**options) -> NoisyImages:
    return NoisyImages(**{"base": "digits", **options})


@pytest.mark.parametrize("variation", VARIATIONS)
def test_evaluation_images_are_the_same_for_every_run(variation):
    images = noisy(variation=variation, seed=1, eval_batch_size=7, batch_size=3).eval_dataset("test")
    again = noisy(variation=variation, seed=2, eval_batch_size=360, batch_size=99).eval_dataset("test")
    assert images.images.dtype == torch.uint8
    values = images.images.double()
    assert (float(values.mean()), float(values.std())) == pytest.approx(EVALUATION_SETS[variation], abs=2e-3)
    assert torch.equal(images[:][0], again[:][0])
    assert torch.equal(images.targets, noisy().dataset("test").targets)
    unchanged = torch.equal(images[:][0], noisy().dataset("test")[:][0])
    assert unchanged == (variation == "basic")


def test_splits_draw_noise_of_their_own():
    data = noisy(variation="back-rand")
    corners = [data.eval_dataset(split)[:100][0][:, 0, 0] for split in ("train", "val", "test")]
    assert not torch.equal(corners[0], corners[1])
    assert not torch.equal(corners[1], corners[2])


@pytest.mark.parametrize("base", ["mnist", "fashion_mnist", "digits"])
def test_any_base(base, tiny_data):
    data = NoisyImages(base=base, variation="back-lined", data_dir=tiny_data, batch_size=10)
    data.prepare_data()
    data.setup("fit")
    assert data.image_shape == (1, 28, 28)
    assert len(data.class_names) == 10
    assert data.eval_dataset("val")[:][0].float().mean() > 100  # paper is light


def test_fresh_noise_changes_and_fixed_noise_does_not():

    fresh, fixed = noisy(variation="back-rand"), noisy(variation="back-rand", fresh=False)
    assert torch.equal(fixed.train_dataset()[:][0], noisy(variation="back-rand").eval_dataset("train")[:][0])
    assert torch.equal(fresh.train_dataset()[:][0], fresh.dataset("train")[:][0])
    batch = torch.rand(4, 1, 28, 28)
    assert torch.equal(fixed.augment(batch, rng.generator("test", 0)), batch)
    assert not torch.equal(
        fresh.augment(batch, rng.generator("test", 0)), fresh.augment(batch, rng.generator("test", 1))
    )


def test_training_digits_are_as_sharp_as_those_of_evaluation():
    def sharpness(images):
        return float(images.float().diff(dim=-1).abs().mean() / images.float().mean())

    augmentation = Compose([RandomAffine(degrees=10, translate=0.05), ElasticDeformation(magnitude=0.01)])
    data = noisy(variation="rot", augmentation=augmentation)
    images, _ = data.dataset("train")[:]
    augmented = data.augment(images.float() / 255, rng.generator("test", 0))
    assert sharpness(augmented) == pytest.approx(sharpness(data.eval_dataset("train")[:][0]), rel=0.03)


def test_photographs_behind_fresh_training_digits_are_varied_where_asked():
    dark = torch.zeros(200, 1, 28, 28)
    plain, varied = (
        noisy(variation="back-image", vary_backgrounds=on).augment(dark, rng.generator("test", 0)).mul(255).round()
        for on in (False, True)
    )
    assert not torch.equal(plain, varied)
    assert varied.min() >= 0
    assert varied.max() <= 255
    fixed = [
        noisy(variation="back-image", fresh=False, vary_backgrounds=on).train_dataset()[:50][0] for on in (False, True)
    ]
    assert torch.equal(*fixed)


def test_larochelle_protocol_is_disjoint_fixed_and_keeps_the_official_test_set_for_testing(monkeypatch):
    def load(self, split):
        count, first = (60_000, 0) if split == "train" else (10_000, 60_000)
        numbers = torch.arange(first, first + count)
        pixels = torch.stack([numbers // 256**2, numbers // 256 % 256, numbers % 256, numbers * 0], 1)
        return pixels.to(torch.uint8).view(-1, 1, 2, 2), numbers % 10

    monkeypatch.setattr(NoisyImages, "load", load)

    def members(data, split):
        pixels = data.dataset(split)[:][0].view(-1, 4).long()
        return set((pixels[:, 0] * 256**2 + pixels[:, 1] * 256 + pixels[:, 2]).tolist())

    data = NoisyImages(base="mnist", variation="basic", protocol="larochelle")
    parts = {split: members(data, split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 10_000, "val": 2_000, "test": 50_000}
    assert set(range(60_000, 70_000)) <= parts["test"]
    again = NoisyImages(base="mnist", variation="basic", protocol="larochelle", seed=5, split_seed=7)
    assert members(again, "train") == parts["train"]


def test_statistics_see_the_variation():
    assert noisy(variation="basic").mean_and_std()[0][0] < 0.25
    assert noisy(variation="back-white").mean_and_std()[0][0] > 0.6


def test_the_polarity_is_that_of_the_variation():
    polarities = {name: noisy(variation=name).preprocessing()["polarity"] for name in VARIATIONS}
    for rot in ("", "rot-"):
        assert {polarities[f"{rot}back-{paper}"] for paper in ("white", "lined", "squared")} == {"dark_on_light"}
        assert {polarities[f"{rot}back-{ground}"] for ground in ("rand", "image")} == {"any"}
    assert polarities["basic"] == polarities["rot"] == "light_on_dark"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "cifar"}, "^base=cifar: .*mnist, fashion_mnist, digits"),
        ({"protocol": "half"}, "^protocol=half: .*full, larochelle"),
        ({"variation": "rotated"}, "^variation=rotated: choose one of basic, rot, back-rand"),
        ({"protocol": "larochelle"}, "^protocol=larochelle: .*62,000"),
    ],
)
def test_unknown_choices_list_the_valid_ones(options, message):
    with pytest.raises(ValueError, match=message):
        noisy(**options)

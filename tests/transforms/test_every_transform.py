"""What every random transform has in common, whatever it does."""

import math

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from imgclf.core import rng
from imgclf.transforms.intensity import ColorJitter, GaussianBlur, RandomErasing, StrokeWidth
from imgclf.transforms.mixing import CutMix, MixUp
from imgclf.transforms.spatial import ElasticDeformation, RandomAffine, RandomFlip, RandomResizedCrop, RandomShift
from imgclf.transforms.strokes import FlagAndFoot
from tests.conftest import PROJECT

OFF = OmegaConf.load(PROJECT / "conf" / "augmentation" / "none.yaml")
NAMES = [name for name in OFF if not name.startswith("_")]
ON = (
    *(RandomAffine(degrees=15), RandomAffine(translate=0.2), RandomAffine(scale=0.2), RandomAffine(shear=0.2)),
    *(ElasticDeformation(0.05), RandomResizedCrop(0.4), RandomShift(5), GaussianBlur(2.0), RandomErasing(1.0)),
    *(ColorJitter(brightness=0.4), ColorJitter(contrast=0.5), ColorJitter(gamma=0.5), StrokeWidth(0.5)),
)


def label(transform: object) -> str:
    return f"{type(transform).__name__}-{vars(transform)}"


@pytest.mark.parametrize("transform", ON, ids=label)
def test_a_transform_acts_on_each_image_by_itself_and_repeats(transform):
    images = torch.full((1, 2, 20, 24), 0.4)
    images[:, 1, 4:12, 6:9] = 0.8
    same = images.repeat(6, 1, 1, 1)
    before = same.clone()
    changed = transform(same, rng.generator("test", 0))
    assert transform
    assert changed.shape == same.shape
    assert changed.dtype == same.dtype
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert len({image.numpy().tobytes() for image in changed}) == 6
    assert torch.equal(same, before)
    assert torch.equal(changed, transform(same, rng.generator("test", 0)))


@pytest.mark.parametrize("name", NAMES)
def test_a_transform_of_no_strength_is_off_and_the_identity(name):
    transform = instantiate(OFF[name], _execution_whitelist_="imgclf.*")
    images, labels = torch.rand(5, 3, 12, 10), torch.arange(5)
    assert not transform
    if isinstance(transform, MixUp | CutMix):
        mixed, targets = transform(images, labels, 5, rng.generator("test", 0))
        assert torch.equal(mixed, images)
        assert torch.equal(targets, torch.eye(5))
    else:
        torch.testing.assert_close(transform(images, rng.generator("test", 0)), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "abc", True])
@pytest.mark.parametrize("name", NAMES)
def test_every_argument_out_of_range_is_refused_by_its_name(name, value):
    for argument in OFF[name]:
        if argument != "_target_":
            with pytest.raises(ValueError, match=rf"^{argument}={value}: give a "):
                instantiate({**OFF[name], argument: value}, _execution_whitelist_="imgclf.*")


@pytest.mark.parametrize(
    "kind", [RandomFlip, RandomErasing, MixUp, CutMix, StrokeWidth, RandomResizedCrop, FlagAndFoot]
)
def test_probabilities_and_shares_are_at_most_one(kind):
    kind(1)
    with pytest.raises(ValueError, match=r"=1\.1: give a number from 0 to 1"):
        kind(1.1)

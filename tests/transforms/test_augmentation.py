import math

import pytest
import torch

from imgclf import seed as seeding
from imgclf.transforms.augmentation import Augmentation


def test_zero_strength_is_the_identity():
    images = torch.rand(5, 3, 12, 12)
    assert Augmentation()(images, seeding.generator("test", 0)) is images


@pytest.mark.parametrize("option", ["degrees", "translate", "scale", "shear"])
def test_each_strength_acts_on_each_image_by_itself_and_repeats(option):
    images = torch.zeros(1, 1, 20, 20)
    images[:, :, 4:12, 6:9] = 1
    same = images.repeat(6, 1, 1, 1)
    augment = Augmentation(**{option: 15 if option == "degrees" else 0.2})
    moved = augment(same, seeding.generator("test", 0))
    assert moved.shape == same.shape
    assert moved.dtype == same.dtype
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert len({image.numpy().tobytes() for image in moved}) == 6
    assert torch.equal(moved, augment(same, seeding.generator("test", 0)))


def test_translation_moves_by_at_most_its_share_of_the_side():
    images = torch.zeros(500, 1, 41, 41)
    images[:, :, 20, 20] = 1
    moved = Augmentation(translate=0.25)(images, seeding.generator("test", 0))[:, 0]
    place = torch.arange(41.0) - 20
    shift = (moved.sum(1) * place).sum(1) / moved.sum((1, 2))
    assert shift.abs().max() <= 0.25 * 41 + 0.5
    assert shift.min() < -9
    assert shift.max() > 9


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_strengths_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=r"augmentation\.degrees"):
        Augmentation(degrees=value)

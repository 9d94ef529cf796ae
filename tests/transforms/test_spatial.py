"""What each spatial transform does: how far, with what probability, and what it shows at the border."""

import pytest
import torch
import torch.nn.functional as F

from imgclf.core import rng
from imgclf.transforms.compose import Compose
from imgclf.transforms.spatial import (
    ELASTIC_POINTS,
    ElasticDeformation,
    RandomAffine,
    RandomFlip,
    RandomResizedCrop,
    RandomShift,
    _bicubic,
)


@pytest.fixture
def generator() -> torch.Generator:
    return rng.generator("test", 0)


def ramps(count: int, side: int) -> torch.Tensor:
    """Images of two channels whose values are a pixel's x and y, each from 0 to 1."""
    place = (torch.arange(float(side)) + 0.5) / side
    return torch.stack([place.expand(side, side), place.expand(side, side).T])[None].repeat(count, 1, 1, 1)


def test_translation_moves_by_at_most_its_share_of_the_side(generator):
    images = torch.zeros(500, 1, 41, 61)
    images[:, :, 20, 30] = 1
    moved = RandomAffine(translate=0.25)(images, generator)[:, 0]
    for axis, side in ((1, 61), (2, 41)):
        shift = (moved.sum(axis) * (torch.arange(float(side)) - side // 2)).sum(1) / moved.sum((1, 2))
        assert shift.abs().max() <= 0.25 * side + 0.5
        assert shift.min() < -0.22 * side
        assert shift.max() > 0.22 * side


def test_zoom_and_shear_have_the_stated_ranges():
    images = torch.zeros(500, 1, 20, 30)
    images[:, :, 5:15, 10:20] = 1
    area = RandomAffine(scale=0.25)(images, rng.generator("test", 1)).sum((1, 2, 3)) / 100
    assert 1 / 1.25**2 - 0.02 <= float(area.min()) < 0.72
    assert 1.4 < float(area.max()) <= 1.25**2 + 0.02
    sheared = RandomAffine(shear=0.3)(images, rng.generator("test", 2))[:, 0]
    centres = (sheared * torch.arange(30.0)).sum(2) / sheared.sum(2).clamp_min(1e-6)
    slope = (centres[:, 14] - centres[:, 5]) / 9
    assert 0.27 < float(slope.max()) <= 0.3 + 1e-3
    assert -0.3 - 1e-3 <= float(slope.min()) < -0.27
    torch.testing.assert_close(sheared.sum((1, 2)), torch.full((500,), 100.0), atol=0.5, rtol=0)


def test_an_oblong_image_is_turned_without_being_stretched():
    images = torch.zeros(200, 1, 20, 60)
    images[:, :, 9:11, 26:34] = 1
    turned = RandomAffine(degrees=90)(images, rng.generator("test", 5))
    y, x = torch.arange(20.0) - 9.5, torch.arange(60.0) - 29.5
    weight = turned.sum((1, 2, 3))
    moment = (turned * (y[:, None] ** 2 + x**2)).sum((1, 2, 3)) / weight
    before = (images[0, 0] * (y[:, None] ** 2 + x**2)).sum() / images[0].sum()
    assert (moment / before).sub(1).abs().max() < 0.15
    assert (weight / images[0].sum()).sub(1).abs().max() < 0.05


def test_a_crop_shows_a_part_of_at_least_its_share_and_nothing_from_outside(generator):
    place = (torch.arange(40.0) + 0.5) / 40
    cropped = RandomResizedCrop(min_area=0.25)(ramps(300, 40), generator)
    low, high = cropped.amin((2, 3)), cropped.amax((2, 3))
    side = (high - low) * 40 / 39  # the pixels' centres span one pixel less than the side
    assert low.min() >= place[0] - 1e-5
    assert high.max() <= place[-1] + 1e-5
    assert side.min() > 0.49
    assert side.min() < 0.55
    assert side.max() > 0.95
    torch.testing.assert_close(side[:, 0], side[:, 1], atol=0.03, rtol=0)


@pytest.mark.parametrize("beside", [(), (RandomAffine(translate=1e-9),)])
def test_flips_are_mirrors_of_half_the_images_alone_or_within_a_warp(beside, generator):
    images = torch.rand(400, 1, 6, 6)
    flipped = Compose([*beside, RandomFlip(p=0.5)])(images, generator)
    tolerance = 1e-4 if beside else 0
    same = (flipped - images).abs().amax((1, 2, 3)) <= tolerance
    mirrored = (flipped - images.flip(-1)).abs().amax((1, 2, 3)) <= tolerance
    assert (same ^ mirrored).all()
    assert 160 < int(mirrored.sum()) < 240


def test_a_flip_alone_is_exact(generator):
    images = torch.rand(20, 3, 6, 7)
    assert torch.equal(RandomFlip(p=1.0)(images, generator), images.flip(-1))


def test_elastic_displaces_by_its_deviation_and_smoothly(generator):
    images = ramps(300, 60)
    moved = (ElasticDeformation(magnitude=0.02)(images, generator) - images)[:, :, 5:-5, 5:-5]
    assert 0.012 < float(moved.std()) < 0.02  # as stated at the points, less between them
    assert abs(float(moved.mean())) < 0.001
    neighbours = torch.corrcoef(torch.stack([moved[..., 1:].flatten(), moved[..., :-1].flatten()]))[0, 1]
    opposite = torch.corrcoef(torch.stack([moved[..., 0].flatten(), moved[..., -1].flatten()]))[0, 1]
    assert neighbours > 0.98
    assert abs(opposite) < 0.1


def test_the_elastic_field_is_the_bicubic_interpolation_of_torch():
    points = torch.randn(3, 2, ELASTIC_POINTS, ELASTIC_POINTS, generator=rng.generator("test", 1))
    cpu = torch.device("cpu")
    expected = F.interpolate(points, (28, 20), mode="bicubic", align_corners=True)
    assert torch.allclose(_bicubic(28, cpu) @ points @ _bicubic(20, cpu).T, expected, atol=1e-5)


def test_shifts_are_by_whole_pixels_uniform_and_repeat_the_border(generator):
    images = torch.rand(2000, 2, 6, 9)
    moved = RandomShift(pixels=2)(images, generator)
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    found = torch.stack(
        [(moved == padded[:, :, y : y + 6, x : x + 9]).all((1, 2, 3)) for y in range(5) for x in range(5)]
    )
    assert (found.sum(0) == 1).all()
    assert found.sum(1).min() > 45
    assert found.sum(1).max() < 115


@pytest.mark.parametrize("transform", [RandomAffine(degrees=30, translate=0.3, scale=0.3), ElasticDeformation(0.1)])
def test_nothing_dark_comes_in_from_outside(transform, generator):
    images = torch.full((50, 1, 12, 16), 0.7)
    torch.testing.assert_close(transform(images, generator), images)

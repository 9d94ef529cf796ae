"""What each transform of values does: how much, and what it leaves as it was."""

import pytest
import torch
import torch.nn.functional as F

from imgclf.core import rng
from imgclf.transforms.intensity import ColorJitter, GaussianBlur, RandomErasing, StrokeWidth, _pool3x3


@pytest.fixture
def generator() -> torch.Generator:
    return rng.generator("test", 0)


def test_strokes_become_thicker_or_thinner_by_at_most_a_pixel(generator):
    images = torch.zeros(400, 1, 15, 15)
    images[:, :, 2:13, 6:9] = 1
    changed = StrokeWidth(magnitude=0.5)(images, generator)
    width = changed[:, 0, 7].sum(1)
    assert 3 - 2 * 0.5 <= float(width.min()) < 2.1
    assert 3.9 < float(width.max()) <= 3 + 2 * 0.5
    assert 150 < int((width > 3).sum()) < 250
    assert changed[:, :, :, :5].max() == 0


def test_the_pool_is_what_torch_has():
    images = torch.rand(3, 2, 9, 6, generator=rng.generator("test", 0))
    assert torch.equal(_pool3x3(images, torch.maximum), F.max_pool2d(images, 3, 1, 1))
    assert torch.equal(_pool3x3(images, torch.minimum), -F.max_pool2d(-images, 3, 1, 1))


def test_blur_keeps_flat_images_and_the_sum_and_spreads_a_point(generator):
    blur = GaussianBlur(sigma=1.5)
    flat = torch.full((4, 1, 9, 9), 0.3)
    torch.testing.assert_close(blur(flat, generator), flat)
    point = torch.zeros(200, 1, 21, 21)
    point[:, :, 10, 10] = 1
    blurred = blur(point, generator)
    torch.testing.assert_close(blurred.sum((1, 2, 3)), torch.ones(200))
    offsets = torch.arange(21.0) - 10
    deviation = (blurred.sum(2) * offsets**2).sum((1, 2)).sqrt()
    assert deviation.max() < 1.5
    assert deviation.max() > 1.2
    assert deviation.min() < 0.2
    torch.testing.assert_close(blurred, blurred.transpose(2, 3))


@pytest.mark.parametrize("jitter", [ColorJitter(brightness=0.9), ColorJitter(contrast=3.0), ColorJitter(gamma=2.0)])
def test_jitter_stays_in_range(jitter, generator):
    changed = jitter(torch.rand(300, 1, 8, 8), generator)
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_brightness_contrast_and_gamma_have_the_stated_ranges(generator):
    images = 0.4 + 0.2 * torch.rand(300, 1, 8, 8)
    shift = (ColorJitter(brightness=0.3)(images, generator) - images).mean((1, 2, 3))
    assert -0.3 <= float(shift.min()) < -0.27
    assert 0.27 < float(shift.max()) <= 0.3
    contrast = ColorJitter(contrast=0.5)(images, generator)
    torch.testing.assert_close(contrast.mean((1, 2, 3)), images.mean((1, 2, 3)))
    factor = contrast.std((1, 2, 3)) / images.std((1, 2, 3))
    assert 1 / 1.5 - 1e-4 <= float(factor.min()) < 0.7
    assert 1.43 < float(factor.max()) <= 1.5 + 1e-4
    power = ColorJitter(gamma=1.0)(images, generator).log() / images.log()
    assert 0.5 - 1e-3 <= float(power.min()) < 0.55
    assert 1.9 < float(power.max()) <= 2 + 1e-3


def test_erasing_paints_one_rectangle_of_the_published_size(generator):
    images = torch.full((500, 1, 60, 60), 2.0)
    erased = RandomErasing(p=0.5)(images, generator)[:, 0]
    changed = erased != 2
    hit = changed.any(2).any(1)
    assert 200 < int(hit.sum()) < 300
    for image, mask in zip(erased[hit], changed[hit], strict=True):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()  # a rectangle
        assert len(image[mask].unique()) == 1
        assert 0 <= float(image[mask][0]) <= 1
        assert 0.015 < len(rows) * len(columns) / 3600 < 0.36

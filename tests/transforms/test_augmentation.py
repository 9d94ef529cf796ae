import math

import pytest
import torch
import torch.nn.functional as F

from imgclf.core import rng
from imgclf.transforms.augmentation import ELASTIC_POINTS, Augmentation, _bicubic, _of_neighbours

CPU = torch.device("cpu")


def test_zero_strength_is_the_identity():
    images = torch.rand(5, 3, 12, 12)
    assert Augmentation()(images, rng.generator("test", 0)) is images
    assert not Augmentation()
    assert all(Augmentation(**given) for given in ({"crop": 0.9}, {"mixup": 0.1}, {"degrees": 1.0}))


OPTIONS = (
    *(("degrees", 15), ("translate", 0.2), ("scale", 0.2), ("shear", 0.2), ("elastic", 0.05), ("crop", 0.4)),
    ("shift", 5),
    *(("blur", 2.0), ("brightness", 0.4), ("contrast", 0.5), ("gamma", 0.5), ("erase", 1.0)),
)


@pytest.mark.parametrize(("option", "strength"), OPTIONS)
def test_each_strength_acts_on_each_image_by_itself_and_repeats(option, strength):
    images = torch.full((1, 2, 20, 24), 0.4)
    images[:, 1, 4:12, 6:9] = 0.8
    same = images.repeat(6, 1, 1, 1)
    augment = Augmentation(**{option: strength})
    moved = augment(same, rng.generator("test", 0))
    assert moved.shape == same.shape
    assert moved.dtype == same.dtype
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert len({image.numpy().tobytes() for image in moved}) == 6
    assert torch.equal(moved, augment(same, rng.generator("test", 0)))


def test_translation_moves_by_at_most_its_share_of_the_side():
    images = torch.zeros(500, 1, 41, 41)
    images[:, :, 20, 20] = 1
    moved = Augmentation(translate=0.25)(images, rng.generator("test", 0))[:, 0]
    place = torch.arange(41.0) - 20
    shift = (moved.sum(1) * place).sum(1) / moved.sum((1, 2))
    assert shift.abs().max() <= 0.25 * 41 + 0.5
    assert shift.min() < -9
    assert shift.max() > 9


def test_shifts_are_by_whole_pixels_uniform_and_repeat_the_border():
    images = torch.rand(2000, 2, 6, 9)
    moved = Augmentation(shift=2)(images, rng.generator("test", 0))
    padded = F.pad(images, (2, 2, 2, 2), mode="replicate")
    found = torch.stack(
        [(moved == padded[:, :, y : y + 6, x : x + 9]).all((1, 2, 3)) for y in range(5) for x in range(5)]
    )
    assert (found.sum(0) == 1).all()
    assert found.sum(1).min() > 45
    assert found.sum(1).max() < 115


def test_flips_are_mirrors_of_half_the_images_alone_or_with_a_warp():
    images = torch.rand(400, 1, 6, 6)
    generator = rng.generator("test", 0)
    for options in ({}, {"translate": 1e-9}):
        flipped = Augmentation(flip=0.5, **options)(images, generator)
        same = (flipped - images).abs().amax((1, 2, 3)) < 1e-4
        mirrored = (flipped - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-4
        assert (same ^ mirrored).all()
        assert 160 < int(mirrored.sum()) < 240
    assert torch.equal(Augmentation(flip=1.0)(images, generator), images.flip(-1))


def test_an_oblong_image_is_turned_without_being_stretched():
    images = torch.zeros(200, 1, 20, 60)
    images[:, :, 9:11, 26:34] = 1
    turned = Augmentation(degrees=90)(images, rng.generator("test", 5))
    y, x = torch.arange(20.0) - 9.5, torch.arange(60.0) - 29.5
    weight = turned.sum((1, 2, 3))
    moment = (turned * (y[:, None] ** 2 + x**2)).sum((1, 2, 3)) / weight
    before = (images[0, 0] * (y[:, None] ** 2 + x**2)).sum() / images[0].sum()
    assert (moment / before).sub(1).abs().max() < 0.15
    assert (weight / images[0].sum()).sub(1).abs().max() < 0.05


def test_a_crop_shows_a_part_of_at_least_its_share_and_nothing_from_outside():
    place = (torch.arange(40.0) + 0.5) / 40
    images = torch.stack([place.expand(40, 40), place.expand(40, 40).T])[None].repeat(300, 1, 1, 1)  # x and y
    cropped = Augmentation(crop=0.25)(images, rng.generator("test", 0))
    low, high = cropped.amin((2, 3)), cropped.amax((2, 3))
    side = (high - low) * 40 / 39  # as pixels' centres span one less
    assert low.min() >= place[0] - 1e-5
    assert high.max() <= place[-1] + 1e-5
    assert side.min() > 0.49
    assert side.min() < 0.55
    assert side.max() > 0.95
    torch.testing.assert_close(side[:, 0], side[:, 1], atol=0.03, rtol=0)


def test_blur_keeps_flat_images_and_the_sum_and_spreads_a_point():
    generator = rng.generator("test", 0)
    flat = torch.full((4, 1, 9, 9), 0.3)
    torch.testing.assert_close(Augmentation(blur=1.5)(flat, generator), flat)
    point = torch.zeros(200, 1, 21, 21)
    point[:, :, 10, 10] = 1
    blurred = Augmentation(blur=1.5)(point, generator)
    torch.testing.assert_close(blurred.sum((1, 2, 3)), torch.ones(200))
    offsets = torch.arange(21.0) - 10
    deviation = (blurred.sum(2) * offsets**2).sum((1, 2)).sqrt()
    assert deviation.max() < 1.5
    assert deviation.max() > 1.2
    assert deviation.min() < 0.2
    torch.testing.assert_close(blurred, blurred.transpose(2, 3))


def test_light_changes_as_stated_and_stays_in_range():
    generator = rng.generator("test", 0)
    images = torch.rand(300, 1, 8, 8)
    for options in ({"brightness": 0.9}, {"contrast": 3.0}, {"gamma": 2.0}):
        changed = Augmentation(**options)(images, generator)
        assert changed.min() >= 0
        assert changed.max() <= 1
    middle = 0.4 + 0.2 * images
    shift = (Augmentation(brightness=0.3)(middle, generator) - middle).mean((1, 2, 3))
    assert -0.3 <= float(shift.min()) < -0.27
    assert 0.27 < float(shift.max()) <= 0.3
    contrast = Augmentation(contrast=0.5)(middle, generator)
    torch.testing.assert_close(contrast.mean((1, 2, 3)), middle.mean((1, 2, 3)))
    factor = contrast.std((1, 2, 3)) / middle.std((1, 2, 3))
    assert 1 / 1.5 - 1e-4 <= float(factor.min()) < 0.7
    assert 1.43 < float(factor.max()) <= 1.5 + 1e-4
    power = Augmentation(gamma=1.0)(middle, generator).log() / middle.log()
    assert 0.5 - 1e-3 <= float(power.min()) < 0.55
    assert 1.9 < float(power.max()) <= 2 + 1e-3


def test_erasing_paints_one_rectangle_of_the_published_size():
    images = torch.full((500, 1, 60, 60), 2.0)
    erased = Augmentation(erase=0.5)(images, rng.generator("test", 0))[:, 0]
    changed = erased != 2
    hit = changed.any(2).any(1)
    assert 200 < int(hit.sum()) < 300
    for image, mask in zip(erased[hit], changed[hit], strict=True):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()  # a rectangle
        assert len(image[mask].unique()) == 1
        assert 0 <= float(image[mask][0]) <= 1
        assert 0.015 < len(rows) * len(columns) / 3600 < 0.36


def test_elastic_displaces_by_its_deviation_and_smoothly():
    place = (torch.arange(60.0) + 0.5) / 60
    images = torch.stack([place.expand(60, 60), place.expand(60, 60).T])[None].repeat(300, 1, 1, 1)  # x and y
    moved = (Augmentation(elastic=0.02)(images, rng.generator("test", 0)) - images)[:, :, 5:-5, 5:-5]
    assert 0.012 < float(moved.std()) < 0.02  # as stated at the points, less between them
    assert abs(float(moved.mean())) < 0.001
    neighbours = torch.corrcoef(torch.stack([moved[..., 1:].flatten(), moved[..., :-1].flatten()]))[0, 1]
    opposite = torch.corrcoef(torch.stack([moved[..., 0].flatten(), moved[..., -1].flatten()]))[0, 1]
    assert neighbours > 0.98
    assert abs(opposite) < 0.1


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_mixing_gives_every_label_the_share_its_image_has(option):
    labels = torch.arange(400) % 4
    images = (labels / 4).view(-1, 1, 1, 1).repeat(1, 2, 9, 7)
    mixed, shares = Augmentation(**{option: 0.5}).mix(images, labels, 4, rng.generator("test", 0))
    torch.testing.assert_close(shares.sum(1), torch.ones(400))
    torch.testing.assert_close((shares * torch.arange(4) / 4).sum(1), mixed.mean((1, 2, 3)))
    changed = (shares.amax(1) < 1).sum()
    assert 100 < int(changed) < 200  # of half of them a quarter meets its own class
    own = shares.gather(1, labels[:, None])[:, 0]
    assert own.min() < 0.1
    if option == "cutmix":
        assert (mixed * 4 == (mixed * 4).round()).all()  # nothing is blended
        assert torch.equal(mixed[:, 0], mixed[:, 1])
    else:
        assert mixed.flatten(1).std(1).max() < 1e-6


def test_mixing_is_off_by_default_and_one_of_two():
    images, labels = torch.rand(4, 1, 5, 5), torch.arange(4)
    assert Augmentation(flip=1.0).mix(images, labels, 4, rng.generator("test", 0)) == (images, labels)
    with pytest.raises(ValueError, match=r"augmentation\.mixup=0\.6 and cutmix=0\.5"):
        Augmentation(mixup=0.6, cutmix=0.5)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "abc"])
def test_strengths_out_of_range_are_refused(value):
    for option in ("degrees", "shift", "elastic", "blur", "gamma", "flip", "crop", "erase", "mixup", "cutmix"):
        with pytest.raises(ValueError, match=rf"augmentation\.{option}"):
            Augmentation(**{option: value})


def test_shortcuts_are_what_torch_has():
    images = torch.rand(3, 2, 9, 6, generator=rng.generator("test", 0))
    assert torch.equal(_of_neighbours(images, torch.maximum), F.max_pool2d(images, 3, 1, 1))
    assert torch.equal(_of_neighbours(images, torch.minimum), -F.max_pool2d(-images, 3, 1, 1))
    points = torch.randn(3, 2, ELASTIC_POINTS, ELASTIC_POINTS, generator=rng.generator("test", 1))
    expected = F.interpolate(points, (28, 20), mode="bicubic", align_corners=True)
    assert torch.allclose(_bicubic(28, CPU) @ points @ _bicubic(20, CPU).T, expected, atol=1e-5)

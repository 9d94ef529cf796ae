import pytest
import torch

from imgclf.data.digits import Digits
from imgclf.transforms.corruptions import CORRUPTIONS, PIXELS_AT_A_TIME, corrupt


@pytest.fixture
def images():
    """uint8 (64, 1, 28, 28): digits."""
    return Digits().eval_dataset("test")[:64][0]


def error(images, corruption, severity):
    return float((corrupt(images, corruption, severity).float() - images.float()).abs().mean())


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corruption_is_the_same_every_time_and_grows_with_the_severity(images, corruption):
    before = images.clone()
    result = corrupt(images, corruption, 3)
    assert (result.dtype, result.shape) == (torch.uint8, images.shape)
    assert torch.equal(images, before)
    torch.rand(3)
    assert torch.equal(corrupt(images, corruption, 3), result)
    errors = [error(images, corruption, severity) for severity in (1, 3, 5)]
    assert 0 < errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(2, 3, 40, 17), (3, 1, 8, 8), (1, 3, 1, 1)])
def test_images_of_every_shape_can_be_corrupted(corruption, shape):
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    assert corrupt(images, corruption, 5).shape == shape


def test_large_sets_are_corrupted_in_parts_that_differ():
    images = torch.full((3, 1, 2000, PIXELS_AT_A_TIME // 4000), 100, dtype=torch.uint8)
    first, second, third = corrupt(images, "gaussian_noise", 1)
    assert not torch.equal(first, second)
    assert not torch.equal(first, third)


def test_known_values(images):
    assert torch.equal(corrupt(images, "brightness", 2)[:, :, 0, 0].unique(), torch.tensor([51], dtype=torch.uint8))
    spot = torch.zeros(9, 1, 28, 28, dtype=torch.uint8)
    spot[:, :, 12:16, 12:16] = 255
    shifted = corrupt(spot, "translate", 5).float()
    rows = shifted.sum((1, 3)) @ torch.arange(28.0) / shifted.sum((1, 2, 3))
    torch.testing.assert_close((rows - 13.5).abs(), torch.full((9,), 5.6), atol=0.05, rtol=0)  # a fifth of 28 pixels
    blurred = corrupt(images, "gaussian_blur", 3).float().sum((1, 2, 3))
    torch.testing.assert_close(blurred, images.float().sum((1, 2, 3)), rtol=0.02, atol=1)
    noise = corrupt(torch.full((9, 1, 64, 64), 128, dtype=torch.uint8), "gaussian_noise", 1).float() / 255
    assert float(noise.std()) == pytest.approx(0.08, rel=0.03)


def test_bad_input(images):
    with pytest.raises(ValueError, match=r"corruption=rain: .*fog"):
        corrupt(images, "rain", 3)
    for severity in (0, 6):
        with pytest.raises(ValueError, match=f"severity={severity}: .*1 to 5"):
            corrupt(images, "fog", severity)

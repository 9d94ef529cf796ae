"""The warp behind rotations and spatial transforms."""

import math

import pytest
import torch
import torch.nn.functional as F

from imgclf.core import rng
from imgclf.transforms.geometry import rotation, warp


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 2, 9, 14, generator=rng.generator("test", 0))


def identity() -> torch.Tensor:
    return torch.eye(3).repeat(3, 1, 1)


def test_no_rotation_is_the_identity(images):
    torch.testing.assert_close(warp(images, rotation(torch.zeros(3))), images, atol=1e-5, rtol=0)


def test_half_a_turn_of_an_oblong_image_and_a_quarter_turn_of_a_square_one_are_exact(images):
    half = warp(images, rotation(torch.full((3,), math.pi)))
    torch.testing.assert_close(half, images.rot90(2, (2, 3)), atol=1e-5, rtol=0)
    square = images[..., :9]
    quarter = warp(square, rotation(torch.full((3,), math.pi / 2)))
    torch.testing.assert_close(quarter, square.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_offsets_are_in_pixels_and_the_padding_mode_says_what_comes_in(images):
    matrices = identity()
    matrices[:, 0, 2], matrices[:, 1, 2] = 2, -1
    shifted = {
        "zeros": F.pad(images, (0, 2, 1, 0))[:, :, :-1, 2:],
        "border": F.pad(images, (0, 2, 1, 0), mode="replicate")[:, :, :-1, 2:],
    }
    for padding_mode, expected in shifted.items():
        moved = warp(images, matrices, padding_mode=padding_mode)
        torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_a_displacement_in_pixels_is_added_before_the_matrix(images):
    mirror = identity()
    mirror[:, 0, 0] = -1
    displacement = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(3, 2, 9, 14)
    one_warp = warp(images, mirror, displacement, "border")
    two_warps = warp(warp(images, mirror), identity(), displacement, "border")
    torch.testing.assert_close(one_warp[:, :, :-1, :-2], two_warps[:, :, :-1, :-2], atol=1e-5, rtol=0)
    torch.testing.assert_close(one_warp[:, :, :-1, :-2], images.flip(-1)[:, :, 1:, 2:], atol=1e-5, rtol=0)

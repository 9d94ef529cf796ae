"""Random transforms that add strokes to light ink on black, as other writers than the data's make them."""

import math

import torch
from torch import Tensor

from imgclf.core.validation import Probability, checked
from imgclf.transforms.draws import RandomTransform, per_image, uniform

BARE = 0.04  # of a bare stroke: its variance across at most, as a share of its variance along
MAX_SLANT = math.radians(25)  # of a stroke that gets a flag, from the vertical
MAX_FLAG_SLANT = math.radians(60)  # of a flag, from the vertical; a flatter one makes a 7
# What is drawn uniformly for each image; lengths are shares of the stroke's length.
FLAG_ANGLE = math.radians(22), math.radians(55)  # between the flag and the stroke
FLAG_LENGTH = 0.2, 0.6
MAX_FOOT = 0.35  # to each side of the stroke
FOOT_TILT = math.radians(10)


class FlagAndFoot(RandomTransform):
    """Gives a digit that is one bare, upright stroke a flag with probability ``p``, and every second of these a foot.

    Most Americans write 1 as a bare stroke, as in MNIST; most Europeans begin it with a long flag, and some end it with
    a foot, which networks take for a 7 or a 2. All other images stay as they are. Needs no labels: the image's second
    moments tell a bare stroke.

    Example:
        >>> images = FlagAndFoot(p=0.3)(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, p: Probability) -> None:
        self.p = p

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        chance, foot, angle, length, left, right, tilt = uniform(7, images, generator)
        ink = images.mean(1)
        middle, up, along, across = _principal_axis(ink)
        slant = torch.atan2(up[:, 0], -up[:, 1])  # positive where the stroke leans to the right
        rows = torch.nonzero((chance < self.p) & (across < BARE * along) & (slant.abs() < MAX_SLANT))[:, 0]
        if not len(rows):
            return images
        chosen, middle, up, slant = ink[rows], middle[rows], up[rows], slant[rows]
        half = (3 * across[rows]).sqrt().clamp(0.5, 3)  # a bar of half width h has the variance h**2 / 3
        place = ((_pixels(ink) - middle[:, None, None]) * up[:, None, None]).sum(-1)
        is_ink = chosen > 0.5 * chosen.amax((1, 2), keepdim=True)
        top = place.masked_fill(~is_ink, -math.inf).amax((1, 2)) + 0.5 - half
        bottom = place.masked_fill(~is_ink, math.inf).amin((1, 2)) - 0.5 + half
        size, start, end = top - bottom, middle + top[:, None] * up, middle + bottom[:, None] * up
        # From straight down, towards the left.
        turn = (slant + _between(FLAG_ANGLE, angle[rows])).clamp_max(MAX_FLAG_SLANT)
        flag = torch.stack([-turn.sin(), turn.cos()], 1) * (size * _between(FLAG_LENGTH, length[rows]))[:, None]
        turn = (tilt[rows] * 2 - 1) * FOOT_TILT
        ground = torch.stack([turn.cos(), turn.sin()], 1) * (MAX_FOOT * size * (foot[rows] < 0.5))[:, None]
        drawn = torch.maximum(
            _segment(ink, start, start + flag, half),
            _segment(ink, end - ground * left[rows, None], end + ground * right[rows, None], half),
        )
        changed = images.clone()
        level = per_image(chosen.amax((1, 2)))
        changed[rows] = torch.maximum(images[rows], drawn[:, None] * level)
        return changed


def _between(limits: tuple[float, float], number: Tensor) -> Tensor:
    low, high = limits
    return low + (high - low) * number


def _pixels(ink: Tensor) -> Tensor:
    """x and y of each pixel, float (H, W, 2)."""
    y, x = (torch.arange(length, dtype=ink.dtype, device=ink.device) for length in ink.shape[1:])
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


def _principal_axis(ink: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each image (N, H, W): the centre of mass (N, 2), the upward axis (N, 2), the variances along and across it."""
    shares = ink.flatten(1) / ink.sum((1, 2)).clamp_min(1e-6)[:, None]
    pixels = _pixels(ink).flatten(0, 1)
    middle = shares @ pixels
    x2, y2, xy = (shares @ torch.stack([*(pixels**2).unbind(1), pixels.prod(1)], 1)).unbind(1)
    xx, yy, xy = x2 - middle[:, 0] ** 2, y2 - middle[:, 1] ** 2, xy - middle.prod(1)
    spread = torch.hypot((xx - yy) / 2, xy)
    angle = torch.atan2(xy, (xx - yy) / 2) / 2
    axis = torch.stack([angle.cos(), angle.sin()], 1)
    axis = torch.where(axis[:, 1:] > 0, -axis, axis)
    return middle, axis, (xx + yy) / 2 + spread, ((xx + yy) / 2 - spread).clamp_min(0)


def _segment(ink: Tensor, start: Tensor, end: Tensor, half: Tensor) -> Tensor:
    """Coverage in [0, 1], (M, H, W), by strokes from ``start`` to ``end``, both (M, 2), of half width ``half`` (M,)."""
    way, offset = (end - start)[:, None, None], _pixels(ink) - start[:, None, None]
    share = ((offset * way).sum(-1) / (way**2).sum(-1).clamp_min(1e-6)).clamp(0, 1)
    distance = (offset - share[..., None] * way).norm(dim=-1)
    return (half[:, None, None] + 0.5 - distance).clamp(0, 1)

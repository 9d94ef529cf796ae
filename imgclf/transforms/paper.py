"""Digits written with dark ink on plain, ruled or squared paper, synthesised batch by batch."""

import math
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from imgclf.core.rng import random_bytes

# What is drawn uniformly for each image; lengths are in pixels, angles in radians.
SHEET = {
    "tone": (0.55, 1.0),  # grey level of the paper
    "shading_x": (-0.2, 0.2),  # relative change of the light from one side of the sheet to the other
    "shading_y": (-0.2, 0.2),
}
LINES = {
    "tilt": (-math.pi / 30, math.pi / 30),
    "thickness": (0.3, 1.6),
    "line_darkness": (0.1, 0.6),  # share of the light that a line takes away
    "phase": (0.0, 1.0),  # where the first line lies, in units of the spacing
}
INK = {
    "thinning": (0.0, 0.55),  # coverage at a stroke's edge that is cut off, which makes the stroke thinner
    "ink_darkness": (0.45, 0.95),  # share of the light that ink takes away
    "blur": (0.0, 1.0),  # share of a 3x3 Gaussian
    "grain": (0.0, 0.06),  # amplitude of the sensor's and the paper's noise
}
# The order of the names is part of the published evaluation sets: the numbers of one generator are dealt out in it.
PATTERNS = {
    "white": SHEET | INK,
    "lined": SHEET | {"spacing": (9.0, 28.0)} | LINES | INK,
    "squared": SHEET | {"spacing": (6.0, 26.0)} | LINES | {"phase_across": (0.0, 1.0)} | INK,
}
DRAWS = 13  # numbers drawn per image, whatever the pattern uses of them


def draw_paper(ink: Tensor, pattern: str, generator: torch.Generator) -> Tensor:
    """Dark ink on light paper, as a scan or photograph of handwriting shows it: float (N, 1, H, W) in [0, 1].

    Args:
        ink: the coverage of the paper by ink, of the same shape and range.
        pattern: a key of ``PATTERNS``.
        generator: on ink's device.
    """
    count, _, height, width = ink.shape
    device, dtype = ink.device, ink.dtype
    numbers = torch.rand(DRAWS, count, 1, 1, 1, generator=generator, device=device).to(dtype)
    drawn = {
        name: number * (high - low) + low
        for (name, (low, high)), number in zip(PATTERNS[pattern].items(), numbers, strict=False)
    }
    y = torch.arange(height, device=device, dtype=dtype).sub_((height - 1) / 2)[:, None]
    x = torch.arange(width, device=device, dtype=dtype).sub_((width - 1) / 2)
    # The light is a product of a row and a column vector, so that the whole sheet costs one operation.
    light = drawn["tone"] * (1 + drawn["shading_x"] / width * x) * (1 + drawn["shading_y"] / height * y)
    if pattern != "white":
        light = light * _ruling(x, y, drawn).mul_(-drawn["line_darkness"]).add_(1)
    thinning = drawn["thinning"]
    sheet = light * (ink - thinning).div_(1 - thinning).clamp_(min=0).mul_(-drawn["ink_darkness"]).add_(1)
    sheet = sheet.lerp_(_gaussian(sheet), drawn["blur"].expand_as(sheet))
    grain = random_bytes(tuple(sheet.shape), device, generator).to(dtype).sub_(127.5)
    return sheet.addcmul_(grain, drawn["grain"] / 255).clamp_(0, 1)


def _ruling(x: Tensor, y: Tensor, drawn: dict[str, Tensor]) -> Tensor:
    """Coverage in [0, 1] by ruled lines, or by squares if a phase across is drawn."""
    spacing, tilt = drawn["spacing"], drawn["tilt"]
    reach = drawn["thickness"] / 2 + 0.5  # from a line's middle: it covers nothing there, and all one pixel before
    across, along = tilt.cos() / spacing, tilt.sin() / spacing
    positions = [y * across + x * along + drawn["phase"]]  # whole numbers are the middles of lines
    if "phase_across" in drawn:
        positions.append(x * across - y * along + drawn["phase_across"])
    distances = [(position - position.round()).abs_().mul_(spacing) for position in positions]
    return reduce(torch.maximum, [distance.neg_().add_(reach).clamp_(0, 1) for distance in distances])


def _gaussian(images: Tensor) -> Tensor:
    """A 3x3 binomial blur that repeats the border; shifted sums are faster here than a convolution."""
    padded = F.pad(images, (0, 0, 1, 1), mode="replicate")
    rows = (padded[:, :, :-2] + padded[:, :, 2:]).mul_(0.25).add_(images, alpha=0.5)
    padded = F.pad(rows, (1, 1, 0, 0), mode="replicate")
    return (padded[..., :-2] + padded[..., 2:]).mul_(0.25).add_(rows, alpha=0.5)

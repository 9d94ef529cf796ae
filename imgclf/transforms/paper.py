"""The MNIST variations of Larochelle et al. (2007), and digits on paper, synthesised batch by batch.

The published files are not used: digits are rotated and given backgrounds as the paper describes
("An empirical evaluation of deep architectures on problems with many factors of variation", ICML 2007).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from imgclf.core.rng import random_bytes


def draw_paper(ink: Tensor, pattern: str, generator: torch.Generator) -> Tensor:
    """Dark ink on light paper, as a scan or photograph of handwriting shows it.

    Drawn for every image, uniformly (lengths in pixels of the image):

    ================  ============  =======================================================
    paper tone        0.55 to 1     grey level of the sheet
    shading           -0.2 to 0.2   relative change of the light across the sheet, per axis
    spacing           9 to 28       between ruled lines; 6 to 26 for squares
    phase             0 to 1        of a period, each direction its own
    tilt              -6 to 6       degrees
    line thickness    0.3 to 1.6
    line darkness     0.1 to 0.6    share of the light that a line takes away
    pen               0 to 0.55     grey level of the stroke's edge that is cut off: thick to thin
    ink darkness      0.45 to 0.95  share of the light that the ink takes away
    blur              0 to 1        share of a 3x3 Gaussian
    grain             0 to 0.06     amplitude of the sensor's and the paper's noise
    ================  ============  =======================================================

    Args:
        ink: float (N, 1, H, W) in [0, 1], the coverage of the paper by ink.
        pattern: "white", "lined" or "squared".
        generator: on ink's device.

    Returns:
        float (N, 1, H, W) in [0, 1].
    """
    n, _, height, width = ink.shape
    device = ink.device
    draw = iter(torch.rand(13, n, 1, 1, 1, generator=generator, device=device).to(ink.dtype))

    def uniform(low: float, high: float) -> Tensor:
        return next(draw) * (high - low) + low

    y = torch.arange(height, device=device, dtype=ink.dtype).sub_((height - 1) / 2).view(1, 1, -1, 1)
    x = torch.arange(width, device=device, dtype=ink.dtype).sub_((width - 1) / 2).view(1, 1, 1, -1)
    tone = uniform(0.55, 1.0)
    # Linear light: separable into a row and a column vector, so the whole sheet costs one operation.
    light = tone * (1 + uniform(-0.2, 0.2) / width * x) * (1 + uniform(-0.2, 0.2) / height * y)
    if pattern != "white":
        spacing = uniform(9, 28) if pattern == "lined" else uniform(6, 26)
        tilt = uniform(-math.pi / 30, math.pi / 30)
        reach = uniform(0.3, 1.6) / 2 + 0.5  # a line covers fully up to reach - 1 from its middle, nothing from reach
        darkness = uniform(0.1, 0.6)
        across, along = tilt.cos() / spacing, tilt.sin() / spacing
        lines = _lines(y * across + x * along + uniform(0, 1), spacing, reach)
        if pattern == "squared":
            lines = torch.maximum(lines, _lines(x * across - y * along + uniform(0, 1), spacing, reach))
        light = light * lines.mul_(-darkness).add_(1)
    cut = uniform(0, 0.55)
    coverage = (ink - cut).div_(1 - cut).clamp_(min=0).mul_(-uniform(0.45, 0.95)).add_(1)
    sheet = light * coverage
    sheet = sheet.lerp_(_gaussian(sheet), uniform(0, 1).expand_as(sheet))
    grain = random_bytes(tuple(sheet.shape), device, generator).to(ink.dtype).sub_(127.5)
    return sheet.addcmul_(grain, uniform(0, 0.06) / 255).clamp_(0, 1)


def _lines(position: Tensor, spacing: Tensor, reach: Tensor) -> Tensor:
    """Coverage in [0, 1] by lines at whole values of ``position``, with edges one pixel soft."""
    distance = (position - position.round()).abs_().mul_(spacing)
    return distance.neg_().add_(reach).clamp_(0, 1)


def _gaussian(images: Tensor) -> Tensor:
    """The 3x3 binomial blur, edges repeated; three shifted sums a direction are faster than a convolution here."""
    padded = F.pad(images, (0, 0, 1, 1), mode="replicate")
    rows = (padded[:, :, :-2] + padded[:, :, 2:]).mul_(0.25).add_(images, alpha=0.5)
    padded = F.pad(rows, (1, 1, 0, 0), mode="replicate")
    return (padded[..., :-2] + padded[..., 2:]).mul_(0.25).add_(rows, alpha=0.5)

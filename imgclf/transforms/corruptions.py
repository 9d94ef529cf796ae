"""Fifteen corruptions of images at five severities, to measure how a network fares on images of poor quality.

They follow Hendrycks and Dietterich ("Benchmarking neural network robustness to common corruptions and perturbations",
ICLR 2019) and, for shear, translation, rotation, lines and spatter, Mu and Gilmer ("MNIST-C", 2019). Lengths are
fractions of the image's shorter side, so that an image of 28 pixels and one of 224 suffer alike. Nothing is trained on
these images, and nothing is chosen on them.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from imgclf.core import rng
from imgclf.core.validation import checked
from imgclf.transforms.draws import per_image, symmetric, uniform
from imgclf.transforms.geometry import rotation, warp

PIXELS_AT_A_TIME = 2**23


def _sign(images: Tensor, generator: torch.Generator) -> Tensor:
    """-1 or 1 for each image."""
    return symmetric(1, images, generator)[0].sign()


def _shifted(images: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Images moved by so many pixels each; outside, their outermost pixels are repeated."""
    matrices = torch.eye(3).repeat(len(images), 1, 1)
    matrices[:, 0, 2], matrices[:, 1, 2] = -right, -down
    return warp(images, matrices, padding_mode="border")


def _clouds(images: Tensor, points: Sequence[int], generator: torch.Generator) -> Tensor:
    """Smooth noise, (N, 1, H, W) in [0, 1]: the sum of grids of so many points a side, finer ones weaker."""
    total = torch.zeros(len(images), 1, *images.shape[-2:])
    for order, count in enumerate(points):
        grid = torch.rand(len(images), 1, count, count, generator=generator)
        total += F.interpolate(grid, images.shape[-2:], mode="bicubic", align_corners=True) / 2**order
    low, high = total.amin((2, 3), keepdim=True), total.amax((2, 3), keepdim=True)
    return (total - low) / (high - low).clamp_min(1e-6)


# Each function takes float images (N, C, H, W) in [0, 1], a level from 0 to 4 and a generator; it may leave the range.


def _gaussian_noise(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[level]
    return images + deviation * torch.randn(images.shape, generator=generator)


def _shot_noise(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    photons = (60, 25, 12, 5, 3)[level]  # that a white pixel receives on average
    return torch.poisson(images * photons, generator=generator) / photons


def _impulse_noise(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    share = (0.03, 0.06, 0.09, 0.17, 0.27)[level]  # of the values, half of which become black and half white
    draw = torch.rand(images.shape, generator=generator)
    return torch.where(draw < share, (draw < share / 2).to(images.dtype), images)


def _gaussian_blur(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    sigma = (0.012, 0.018, 0.024, 0.032, 0.042)[level] * min(images.shape[-2:])
    sides = [2 * min(math.ceil(3 * sigma), side - 1) + 1 for side in images.shape[:1:-1]]
    return gaussian_blur(images, sides, [sigma])


def _motion_blur(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """The mean of the image at nine places along a line in a random direction."""
    length = (0.06, 0.10, 0.14, 0.19, 0.25)[level] * min(images.shape[-2:])
    direction = uniform(1, images, generator)[0] * math.pi
    places = torch.linspace(-length / 2, length / 2, 9).tolist()
    moved = (_shifted(images, direction.cos() * place, direction.sin() * place) for place in places)
    return sum(moved, torch.zeros_like(images)) / len(places)


def _brightness(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    return images + (0.1, 0.2, 0.3, 0.4, 0.5)[level]


def _contrast(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    mean = images.mean((2, 3), keepdim=True)
    return (images - mean) * (0.4, 0.3, 0.2, 0.1, 0.05)[level] + mean


def _fog(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Bright clouds before the image, which keeps its largest value."""
    amount = (0.6, 0.9, 1.2, 1.6, 2.2)[level]
    largest = images.amax((1, 2, 3), keepdim=True)
    clouds = _clouds(images, (2, 4, 8, 16), generator)
    return (images + amount * clouds) * largest / (largest + amount)


def _jpeg(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    quality = (25, 18, 15, 10, 7)[level]
    decoded = []
    for image in images.mul(255).round_().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
        decoded.append(torch.from_numpy(np.array(Image.open(file))).view(image.shape).permute(2, 0, 1))
    return torch.stack(decoded).float().div_(255)


def _pixelate(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    size = [max(1, round(side * (0.65, 0.5, 0.4, 0.3, 0.2)[level])) for side in images.shape[-2:]]
    return F.interpolate(F.interpolate(images, size, mode="area"), images.shape[-2:], mode="nearest-exact")


def _rotate(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    angles = _sign(images, generator) * math.radians((8, 15, 22, 30, 40)[level])
    return warp(images, rotation(angles), padding_mode="border")


def _shear(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    matrices = torch.eye(3).repeat(len(images), 1, 1)
    matrices[:, 0, 1] = _sign(images, generator) * (0.15, 0.3, 0.45, 0.6, 0.8)[level]
    return warp(images, matrices, padding_mode="border")


def _translate(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    height, width = images.shape[-2:]
    share = (0.04, 0.08, 0.12, 0.16, 0.2)[level]
    return _shifted(images, _sign(images, generator) * share * width, _sign(images, generator) * share * height)


def _lines(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Straight lines across the image, of one random grey value each."""
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    half_width = max(0.5, 0.018 * min(height, width))
    for _ in range((1, 2, 3, 5, 7)[level]):
        angle, offset, value = uniform(3, images, generator)
        angle, offset = per_image(angle * math.pi), per_image((offset - 0.5) * 0.8 * min(height, width))
        distance = (x * angle.cos() + y * angle.sin() - offset).abs()
        images = images.lerp(
            per_image(value).expand_as(images), (half_width + 0.5 - distance).clamp(0, 1).expand_as(images)
        )
    return images


def _spatter(images: Tensor, level: int, generator: torch.Generator) -> Tensor:
    """Drops of one random grey value an image, with soft edges."""
    share = (0.03, 0.06, 0.1, 0.15, 0.21)[level]  # of the image that drops cover
    clouds = _clouds(images, (12,), generator)
    threshold = clouds.flatten(1).quantile(1 - share, dim=1)
    drops = ((clouds - per_image(threshold)) * 12 + 0.5).clamp(0, 1)
    value = per_image(uniform(1, images, generator)[0])
    return images.lerp(value.expand_as(images), drops.expand_as(images))


# The order is part of the random numbers: a new corruption comes last.
CORRUPTIONS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
    "gaussian_blur": _gaussian_blur,
    "motion_blur": _motion_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "fog": _fog,
    "jpeg": _jpeg,
    "pixelate": _pixelate,
    "rotate": _rotate,
    "shear": _shear,
    "translate": _translate,
    "lines": _lines,
    "spatter": _spatter,
}
SEVERITIES = (1, 2, 3, 4, 5)
Corruption = Literal[*CORRUPTIONS]  # pyrefly: ignore[invalid-literal]
Severity = Annotated[int, Field(ge=1, le=5)]


@checked
def corrupt(images: Tensor, corruption: Corruption, severity: Severity) -> Tensor:
    """Corrupts all images of a data set: the same images give the same result in every run, on every machine.

    Args:
        images: uint8 (N, C, H, W). The noise of an image depends on its place among them.
        corruption: one of ``CORRUPTIONS``.
        severity: from 1 (slight) to 5 (severe).

    Returns:
        uint8 (N, C, H, W), new.

    Example:
        >>> noisy = corrupt(data.eval_dataset("test")[:][0], "gaussian_noise", severity=3)
    """
    apply = CORRUPTIONS[corruption]
    size = max(1, PIXELS_AT_A_TIME // math.prod(images.shape[1:]))
    result = torch.empty_like(images, memory_format=torch.contiguous_format)
    for start in range(0, len(images), size):
        generator = rng.generator("corruption", list(CORRUPTIONS).index(corruption), severity, start)
        chunk = images[start : start + size].float().div_(255)
        values = apply(chunk, severity - 1, generator)
        result[start : start + size] = values.clamp_(0, 1).mul_(255).round_().to(torch.uint8)
    return result

"""Random transforms that move pixels. Around an image its outermost pixels are repeated."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from imgclf.core.validation import Count, Probability, Share, Strength, checked
from imgclf.transforms.draws import RandomTransform, per_image, symmetric, uniform
from imgclf.transforms.geometry import rotation, warp

ELASTIC_POINTS = 5  # control points along each side


class SpatialTransform(ABC):
    """A transform that says where each output pixel comes from, so that several become a single warp."""

    @abstractmethod
    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Draws ``matrices`` and ``displacement`` for ``geometry.warp``; neither depends on the pixels' values."""

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return fused([self], images, generator)


def fused(transforms: Sequence[SpatialTransform], images: Tensor, generator: torch.Generator) -> Tensor:
    """Applies consecutive transforms with one interpolation, which keeps images sharp and saves time.

    Equals the transforms one after the other, apart from interpolation and what lies around an image. A displacement
    ends a warp: transforms after it start another.
    """
    combined = None
    for transform in transforms:
        matrices, displacement = transform.draw(images, generator)
        combined = matrices if combined is None else combined @ matrices
        if displacement is not None:
            images, combined = warp(images, combined, displacement, padding_mode="border"), None
    return images if combined is None else warp(images, combined, padding_mode="border")


class RandomAffine(RandomTransform, SpatialTransform):
    """Rotation, shift, zoom and shear about the centre.

    Args:
        degrees: the angle is uniform in [-degrees, degrees].
        translate: the shift along each axis, as a fraction of the side, is uniform in [-translate, translate].
        scale: the zoom along each axis is log-uniform in [1 / (1 + scale), 1 + scale].
        shear: the tangent of the horizontal shear's angle is uniform in [-shear, shear].

    Example:
        >>> images = RandomAffine(degrees=15, translate=0.1)(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(
        self, degrees: Strength = 0.0, translate: Strength = 0.0, scale: Strength = 0.0, shear: Strength = 0.0
    ) -> None:
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        height, width = images.shape[-2:]
        angle, zoom_x, zoom_y, shear, shift_x, shift_y = symmetric(6, images, generator)
        matrices = rotation(angle * math.radians(self.degrees))
        matrices[:, :, 0] /= torch.exp(zoom_x * math.log1p(self.scale))[:, None]
        matrices[:, :, 1] /= torch.exp(zoom_y * math.log1p(self.scale))[:, None]
        matrices[:, :, 1] += matrices[:, :, 0] * (shear * self.shear)[:, None]
        matrices[:, 0, 2] = shift_x * (self.translate * width)
        matrices[:, 1, 2] = shift_y * (self.translate * height)
        return matrices, None


class RandomResizedCrop(SpatialTransform):
    """A random part of the image, of the image's aspect ratio, scaled to full size (Szegedy et al. 2015).

    The part's share of the image's area is uniform in [min_area, 1]; ``min_area=1`` is off.

    Example:
        >>> images = RandomResizedCrop(min_area=0.5)(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, min_area: Share) -> None:
        self.min_area = min_area

    def __bool__(self) -> bool:
        return self.min_area < 1

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        height, width = images.shape[-2:]
        area = uniform(1, images, generator)[0]
        place_x, place_y = symmetric(2, images, generator)
        side = (self.min_area + (1 - self.min_area) * area).sqrt()  # as a fraction of the image's
        matrices = _diagonal(side, side)
        matrices[:, 0, 2] = place_x * (1 - side) * (width / 2)
        matrices[:, 1, 2] = place_y * (1 - side) * (height / 2)
        return matrices, None


class RandomFlip(RandomTransform, SpatialTransform):
    """A horizontal flip with probability ``p``, exact where no other spatial transform stands beside it.

    Example:
        >>> images = RandomFlip(p=0.5)(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, p: Probability) -> None:
        self.p = p

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        matrices, _ = self.draw(images, generator)
        return torch.where(per_image(matrices[:, 0, 0] < 0), images.flip(-1), images)

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, None]:
        sign = torch.where(uniform(1, images, generator)[0] < self.p, -1.0, 1.0)
        return _diagonal(sign, torch.ones_like(sign)), None


class ElasticDeformation(RandomTransform, SpatialTransform):
    """A smooth random displacement (Simard et al. 2003), drawn at 5x5 points and bicubic between them.

    At the points its standard deviation along each axis is ``magnitude``, as a fraction of the side; between them it is
    about four fifths of that.

    Example:
        >>> images = ElasticDeformation(magnitude=0.02)(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, magnitude: Strength) -> None:
        self.magnitude = magnitude

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        count, _, height, width = images.shape
        size, device = (count, 2, ELASTIC_POINTS, ELASTIC_POINTS), images.device
        points = torch.randn(size, generator=generator, device=device)
        points[:, 0] *= self.magnitude * width
        points[:, 1] *= self.magnitude * height
        displacement = _bicubic(height, device) @ points @ _bicubic(width, device).T
        return torch.eye(3, device=device).expand(count, 3, 3), displacement


class RandomShift(RandomTransform):
    """A shift by whole pixels: nothing is interpolated, so that noise stays as it is.

    The shift along each axis is uniform among the whole numbers from -pixels to pixels.

    Example:
        >>> images = RandomShift(pixels=2)(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, pixels: Count) -> None:
        self.pixels = pixels

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = images.shape
        size = (2, count, 1)
        shift_y, shift_x = torch.randint(-self.pixels, self.pixels + 1, size, generator=generator, device=images.device)
        rows = (torch.arange(height, device=images.device) + shift_y).clamp(0, height - 1)
        columns = (torch.arange(width, device=images.device) + shift_x).clamp(0, width - 1)
        images = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
        return images.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


def _diagonal(x: Tensor, y: Tensor) -> Tensor:
    """(N, 3, 3) matrices that scale the two axes by ``x`` and ``y`` (N,)."""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], -1))


def _bicubic(length: int, device: torch.device) -> Tensor:
    """float (length, ELASTIC_POINTS): the weights of F.interpolate, which takes three times as long to apply them."""
    points = torch.eye(ELASTIC_POINTS, device=device)[None, None]
    return F.interpolate(points, (length, ELASTIC_POINTS), mode="bicubic", align_corners=True)[0, 0]

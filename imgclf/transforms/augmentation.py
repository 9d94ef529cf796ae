"""Augmentation of training batches, drawn anew for every image, on the batch's device."""

import math

import torch
from torch import Tensor

from imgclf.transforms.geometry import rotation, warp


class Augmentation:
    """Random affine jitter, black outside the image; every strength is 0 by default, and at 0 images pass unchanged.

    Args:
        degrees: rotation, uniform in [-degrees, degrees].
        translate: shift along each axis, uniform, as a fraction of the side: [-translate, translate].
        scale: zoom along each axis, log-uniform in [1 / (1 + scale), 1 + scale].
        shear: horizontal shear, uniform in [-shear, shear] (tangent of the angle).

    Raises:
        ValueError: a strength is negative or not a number.
    """

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
    ) -> None:
        strengths = {"degrees": degrees, "translate": translate, "scale": scale, "shear": shear}
        for name, value in strengths.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"augmentation.{name}={value}: give a number from 0 (off) up")
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, scale, shear

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Float images (N, C, H, W) in, the same shape out; ``generator`` lives on the images' device."""
        if not (self.degrees or self.translate or self.scale or self.shear):
            return images
        draw = torch.rand(6, len(images), generator=generator, device=images.device) * 2 - 1
        zoom = torch.exp(draw[:2] * math.log1p(self.scale))
        matrices = rotation(draw[2] * math.radians(self.degrees))
        matrices[:, :, :2] /= zoom.T[:, None, :]
        matrices[:, :, 1] += matrices[:, :, 0] * (draw[3] * self.shear)[:, None]
        matrices[:, :, 2] = draw[4:].T * 2 * self.translate  # the side spans 2 in warp's coordinates
        return warp(images, matrices)

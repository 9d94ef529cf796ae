"""Affine warps of whole batches."""

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(images: Tensor, matrices: Tensor, outside: str = "zeros", displacement: Tensor | None = None) -> Tensor:
    """Warps every image by its own matrix, bilinearly.

    Args:
        images: float (N, C, H, W).
        matrices: float (N, 2, 3), output to input coordinates (x, y, 1); both run from -1 to 1, centre (0, 0). What
            goes from x to y, or back, is measured in pixels, so that a rotation is one of oblong images too.
        outside: what lies around an image: "zeros" (black), or "border", its outermost pixels repeated.
        displacement: float (N, H, W, 2), added to the input coordinates (x, y) of every pixel.
    """
    height, width = images.shape[-2:]
    y, x = (
        torch.arange(n, device=images.device, dtype=images.dtype).mul_(2).add_(1 - n).div_(n) for n in (height, width)
    )
    # Two outer sums: F.affine_grid does the same by many small matrix products, ten times as slow on a CPU.
    steps = (x, y * (height / width)), (x * (width / height), y)
    grid = [
        (m[:, 0, None] * right)[:, None, :] + (m[:, 1, None] * down + m[:, 2, None])[:, :, None]
        for m, (right, down) in zip(matrices.unbind(1), steps, strict=True)
    ]
    places = torch.stack(grid, -1)
    if displacement is not None:
        places += displacement
    return F.grid_sample(images, places, mode="bilinear", padding_mode=outside, align_corners=False)


def rotation(angles: Tensor) -> Tensor:
    """(N, 2, 3) matrices that turn images counter-clockwise by ``angles`` (N,), in radians, about the centre."""
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    return torch.stack([cos, -sin, zero, sin, cos, zero], -1).view(-1, 2, 3)

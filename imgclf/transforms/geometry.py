"""Affine warps of whole batches, in coordinates of pixels (x, y) whose origin is the image's centre."""

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(images: Tensor, matrices: Tensor, displacement: Tensor | None = None, padding_mode: str = "zeros") -> Tensor:
    """Warps each image by its own matrix, bilinearly; pixel p shows the input at ``matrix @ (p + displacement)``.

    Args:
        images: float (N, C, H, W).
        matrices: float (N, 3, 3), from output to input coordinates (x, y, 1), in pixels from the centre.
        displacement: float (N, 2, H, W), the shift (x, y) of each output pixel, in pixels.
        padding_mode: what lies around an image: "zeros" (black), or "border" (its outermost pixels are repeated).
    """
    height, width = images.shape[-2:]
    y, x = (  # grid_sample's coordinates: an axis runs from -1 to 1
        torch.arange(n, device=images.device, dtype=images.dtype).mul_(2).add_(1 - n).div_(n) for n in (height, width)
    )
    # A step along the other axis is rescaled, so that a rotation of an oblong image is one in pixels.
    axes = zip(matrices.unbind(1), (x, x * (width / height)), (y * (height / width), y), (width, height), strict=False)
    grid = []
    for row, right, down, length in axes:
        per_x, per_y, offset = row[:, :, None].unbind(1)
        # F.affine_grid does the same by many small matrix products, which take ten times as long on a CPU.
        places = (per_x * right)[:, None, :] + (per_y * down + offset * (2 / length))[:, :, None]
        if displacement is not None:
            moved_x, moved_y = displacement.unbind(1)
            places += (moved_x * per_x[:, None] + moved_y * per_y[:, None]).mul_(2 / length)
        grid.append(places)
    return F.grid_sample(images, torch.stack(grid, -1), mode="bilinear", padding_mode=padding_mode, align_corners=False)


def rotation(angles: Tensor) -> Tensor:
    """(N, 3, 3) matrices that turn images counter-clockwise about the centre by ``angles`` (N,), in radians."""
    cos, sin, zero, one = angles.cos(), angles.sin(), torch.zeros_like(angles), torch.ones_like(angles)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], -1).view(-1, 3, 3)

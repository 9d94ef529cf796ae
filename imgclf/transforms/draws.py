"""Random numbers for transforms: one draw per image, on the images' device."""

import torch
from torch import Tensor


def uniform(count: int, images: Tensor, generator: torch.Generator) -> Tensor:
    """float (count, N), uniform in [0, 1): ``count`` numbers for each of N images."""
    return torch.rand(count, len(images), generator=generator, device=images.device)


def symmetric(count: int, images: Tensor, generator: torch.Generator) -> Tensor:
    """float (count, N), uniform in [-1, 1)."""
    return uniform(count, images, generator) * 2 - 1


def per_image(values: Tensor) -> Tensor:
    """(N,) as (N, 1, 1, 1), which broadcasts over a batch of images."""
    return values[:, None, None, None]

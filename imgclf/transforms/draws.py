"""What random transforms share: a truth value, and random numbers, one for each image, on the images' device."""

import torch
from torch import Tensor


class RandomTransform:
    """A transform that draws anew for each image. It is on, which means true, unless its arguments are all 0.

    It takes float images (N, C, H, W) in [0, 1] and a generator on their device, and returns the same shape and range.
    """

    def __bool__(self) -> bool:
        return any(vars(self).values())


def uniform(count: int, images: Tensor, generator: torch.Generator) -> Tensor:
    """float (count, N), uniform in [0, 1): ``count`` numbers for each of N images."""
    return torch.rand(count, len(images), generator=generator, device=images.device)


def symmetric(count: int, images: Tensor, generator: torch.Generator) -> Tensor:
    """float (count, N), uniform in [-1, 1)."""
    return uniform(count, images, generator) * 2 - 1


def per_image(values: Tensor) -> Tensor:
    """(N,) as (N, 1, 1, 1), which broadcasts over a batch of images."""
    return values[:, None, None, None]

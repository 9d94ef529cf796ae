"""Random transforms that change values and leave every pixel in its place."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from imgclf.core.validation import Probability, Share, Strength, checked
from imgclf.transforms.draws import RandomTransform, per_image, symmetric, uniform

ERASED_AREA = (0.02, 1 / 3)  # share of the image, from Zhong et al. (2020)
ERASED_ASPECT = 3.3  # the rectangle's height divided by its width, relative to the image's, is at most this


class StrokeWidth(RandomTransform):
    """Makes strokes of light ink thicker or thinner.

    A coin decides between the maximum and the minimum over each 3x3 neighbourhood. An image is blended with it; its
    share is uniform in [0, magnitude].

    Example:
        >>> images = StrokeWidth(magnitude=0.3)(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, magnitude: Share) -> None:
        self.magnitude = magnitude

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        amount = per_image(symmetric(1, images, generator)[0] * self.magnitude)
        thick, thin = _pool3x3(images, torch.maximum), _pool3x3(images, torch.minimum)
        return images.lerp(torch.where(amount > 0, thick, thin), amount.abs())


class GaussianBlur(RandomTransform):
    """A Gaussian blur whose standard deviation, in pixels, is uniform in [0, sigma].

    Around an image its outermost pixels are repeated.

    Example:
        >>> images = GaussianBlur(sigma=1.0)(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, sigma: Strength) -> None:
        self.sigma = sigma

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, channels, height, width = images.shape
        reach = math.ceil(2 * self.sigma)
        sigma = uniform(1, images, generator)[0] * self.sigma
        offsets = torch.arange(-reach, reach + 1, device=images.device)
        kernels = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3)[:, None]) ** 2)
        kernels = (kernels / kernels.sum(1, keepdim=True)).repeat_interleave(channels, 0)
        # Each image and channel is a group of its own, because each image has its own kernel.
        images = F.pad(images.reshape(1, -1, height, width), (reach, reach, reach, reach), mode="replicate")
        images = F.conv2d(images, kernels[:, None, None, :], groups=count * channels)
        images = F.conv2d(images, kernels[:, None, :, None], groups=count * channels)
        return images.view(count, channels, height, width)


class ColorJitter(RandomTransform):
    """Changes gamma, then contrast and brightness, of all channels alike; values are clipped to [0, 1].

    Args:
        brightness: what is added to all values is uniform in [-brightness, brightness].
        contrast: the factor about each channel's mean is log-uniform in [1 / (1 + contrast), 1 + contrast].
        gamma: the exponent of all values is log-uniform in [1 / (1 + gamma), 1 + gamma].

    Example:
        >>> images = ColorJitter(brightness=0.1, contrast=0.3)(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, brightness: Strength = 0.0, contrast: Strength = 0.0, gamma: Strength = 0.0) -> None:
        self.brightness, self.contrast, self.gamma = brightness, contrast, gamma

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        brightness, contrast, gamma = symmetric(3, images, generator)[..., None, None, None]
        if self.gamma:
            images = images.clamp_min(1e-4) ** torch.exp(gamma * math.log1p(self.gamma))
        mean = images.mean((2, 3), keepdim=True)
        factor = torch.exp(contrast * math.log1p(self.contrast))
        return ((images - mean) * factor + mean + brightness * self.brightness).clamp(0, 1)


class RandomErasing(RandomTransform):
    """Paints a random rectangle with one random value, with probability ``p`` (Zhong et al. 2020).

    Its area is uniform in [2%, 33%] of the image, and its aspect ratio log-uniform in [1 / 3.3, 3.3] times the image's.

    Example:
        >>> images = RandomErasing(p=0.25)(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, p: Probability) -> None:
        self.p = p

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        area, aspect, top, left, value, chance = uniform(6, images, generator)
        area = ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * area
        aspect = torch.exp((aspect * 2 - 1) * math.log(ERASED_ASPECT))
        rows = _interval(images.shape[-2], (area * aspect).sqrt(), top)
        columns = _interval(images.shape[-1], (area / aspect).sqrt(), left)
        erased = rows[:, None, :, None] & columns[:, None, None, :] & per_image(chance < self.p)
        return torch.where(erased, per_image(value), images)


def _interval(length: int, extent: Tensor, place: Tensor) -> Tensor:
    """bool (N, length): pixels in an interval that covers ``extent`` of the length, ``place`` of the way along it."""
    centres = torch.arange(length, device=extent.device) + 0.5
    start = (place * (1 - extent.clamp_max(1)) * length)[:, None]
    return (centres >= start) & (centres < start + (extent * length)[:, None])


def _pool3x3(images: Tensor, choose: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The maximum or minimum of each pixel's 3x3 neighbourhood; max_pool2d takes ten times as long on a CPU."""
    images = F.pad(images, (1, 1, 1, 1), mode="replicate")
    for axis in (-2, -1):
        before, here, after = (images.narrow(axis, start, images.shape[axis] - 2) for start in range(3))
        images = choose(choose(before, here), after)
    return images

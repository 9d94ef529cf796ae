"""Random transforms that change values and leave every pixel in its place.

A transform takes float images (N, C, H, W) in [0, 1] and a generator on their device, draws anew for each image, and
returns images of the same shape and range. Its truth value says whether it is on.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from imgclf.core.validation import Probability, Share, Strength, checked
from imgclf.transforms.draws import per_image, symmetric, uniform

ERASED_AREA = (0.02, 1 / 3)  # share of the image, from Zhong et al. (2020)
ERASED_ASPECT = 3.3  # the rectangle's height divided by its width, relative to the image's, is at most this


class StrokeWidth:
    """Makes strokes of light ink thicker or thinner.

    Args:
        magnitude: an image is blended with the maximum (or minimum) over each 3x3 neighbourhood, whose share is
            uniform in [0, magnitude]; a coin decides between the two.

    Example:
        >>> augment = StrokeWidth(magnitude=0.3)
        >>> images = augment(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, magnitude: Share) -> None:
        self.magnitude = magnitude

    def __bool__(self) -> bool:
        return self.magnitude > 0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        amount = per_image(symmetric(1, images, generator)[0] * self.magnitude)
        thick, thin = _pool3x3(images, torch.maximum), _pool3x3(images, torch.minimum)
        return images.lerp(torch.where(amount > 0, thick, thin), amount.abs())


class GaussianBlur:
    """A Gaussian blur; around an image its outermost pixels are repeated.

    Args:
        sigma: the standard deviation, in pixels, is uniform in [0, sigma].

    Example:
        >>> augment = GaussianBlur(sigma=1.0)
        >>> images = augment(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, sigma: Strength) -> None:
        self.sigma = sigma

    def __bool__(self) -> bool:
        return self.sigma > 0

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


class ColorJitter:
    """Changes gamma, then contrast and brightness, of all channels alike; values are clipped to [0, 1].

    Args:
        brightness: what is added to all values is uniform in [-brightness, brightness].
        contrast: the factor about each channel's mean is log-uniform in [1 / (1 + contrast), 1 + contrast].
        gamma: the exponent of all values is log-uniform in [1 / (1 + gamma), 1 + gamma].

    Example:
        >>> augment = ColorJitter(brightness=0.1, contrast=0.3)
        >>> images = augment(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, brightness: Strength = 0.0, contrast: Strength = 0.0, gamma: Strength = 0.0) -> None:
        self.brightness, self.contrast, self.gamma = brightness, contrast, gamma

    def __bool__(self) -> bool:
        return any((self.brightness, self.contrast, self.gamma))

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        brightness, contrast, gamma = symmetric(3, images, generator)[..., None, None, None]
        if self.gamma:
            images = images.clamp_min(1e-4) ** torch.exp(gamma * math.log1p(self.gamma))
        mean = images.mean((2, 3), keepdim=True)
        factor = torch.exp(contrast * math.log1p(self.contrast))
        return ((images - mean) * factor + mean + brightness * self.brightness).clamp(0, 1)


class RandomErasing:
    """Paints a random rectangle with one random value (Zhong et al. 2020).

    Its area is uniform in [2%, 33%] of the image, and its aspect ratio log-uniform in [1 / 3.3, 3.3] times the image's.

    Args:
        p: probability that an image is painted.

    Example:
        >>> augment = RandomErasing(p=0.25)
        >>> images = augment(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, p: Probability) -> None:
        self.p = p

    def __bool__(self) -> bool:
        return self.p > 0

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        area, aspect, top, left, value, chance = uniform(6, images, generator)
        low, high = ERASED_AREA
        area = low + (high - low) * area
        aspect = torch.exp((aspect * 2 - 1) * math.log(ERASED_ASPECT))
        rows = _interval(images.shape[-2], (area * aspect).sqrt(), top)
        columns = _interval(images.shape[-1], (area / aspect).sqrt(), left)
        erased = rows[:, None, :, None] & columns[:, None, None, :] & per_image(chance < self.p)
        return torch.where(erased, per_image(value), images)


def _interval(length: int, extent: Tensor, place: Tensor) -> Tensor:
    """bool (N, length): pixels inside an interval of ``extent`` (N,), a fraction of the length.

    ``place`` (N,) from 0 to 1 says where it lies, from one end to the other.
    """
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

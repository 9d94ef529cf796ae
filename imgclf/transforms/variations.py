"""The MNIST variations of Larochelle et al. (2007), and digits on paper, synthesised batch by batch.

The published files are not used: digits are rotated and given backgrounds as the paper describes
("An empirical evaluation of deep architectures on problems with many factors of variation", ICML 2007).
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from imgclf.core.rng import random_bytes
from imgclf.core.validation import checked
from imgclf.transforms.backgrounds import Backgrounds
from imgclf.transforms.geometry import rotation, warp
from imgclf.transforms.paper import PATTERNS, draw_paper

VariationName = Literal[
    "basic", "rot",
    "back-rand", "back-image", "back-white", "back-lined", "back-squared",
    "rot-back-rand", "rot-back-image", "rot-back-white", "rot-back-lined", "rot-back-squared",
]  # fmt: skip
VARIATIONS = get_args(VariationName)


class Variation:
    """Turns light digits on black into one of ``VARIATIONS``.

    Args:
        variation: "basic" (unchanged), "rot" (turned by any angle), or one with a background.
        backgrounds: where the patches of back-image come from, which needs them.

    Example:
        >>> vary = Variation("rot-back-image", Backgrounds(photographs("train")))
        >>> images = vary(images, torch.Generator().manual_seed(0))
    """

    @checked
    def __init__(self, variation: VariationName, backgrounds: Backgrounds | None = None) -> None:
        self.backgrounds = backgrounds
        self.rotates = variation.startswith("rot")
        self.background = variation.rpartition("back-")[2] if "back-" in variation else None
        if self.background == "image" and backgrounds is None:
            raise ValueError(f"variation={variation}: needs backgrounds, as in Backgrounds(photographs('train'))")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Applies the variation to float images (N, 1, H, W) in [0, 1], drawing anew for each.

        The generator must be on the images' device. Shape, dtype and range stay; on paper, dark ink is on light.
        """
        if self.rotates:
            angles = torch.rand(len(images), generator=generator, device=images.device) * (2 * math.pi)
            images = warp(images, rotation(angles))
        if self.background is None:
            return images
        if self.background in PATTERNS:
            return draw_paper(images, self.background, generator)
        if self.backgrounds is not None and self.background == "image":
            behind = self.backgrounds.sample(len(images), generator)
        else:
            behind = random_bytes(tuple(images.shape), images.device, generator)
        behind = behind.to(images.dtype).div_(255)
        return behind.lerp_(torch.ones((), dtype=images.dtype, device=images.device).expand_as(behind), images)

"""The MNIST variations of Larochelle et al. (2007), and digits on paper, synthesised batch by batch.

The published files are not used: digits are rotated and given backgrounds as the paper describes
("An empirical evaluation of deep architectures on problems with many factors of variation", ICML 2007).
"""

import math

import torch
from torch import Tensor

from imgclf.core.rng import random_bytes
from imgclf.transforms.backgrounds import Backgrounds
from imgclf.transforms.geometry import rotation, warp
from imgclf.transforms.paper import draw_paper

BACKGROUNDS = ("rand", "image", "white", "lined", "squared")
VARIATIONS = ("basic", "rot", *(f"{rot}back-{name}" for rot in ("", "rot-") for name in BACKGROUNDS))


class Variation:
    """Turns light digits on black into one of ``VARIATIONS``.

    Args:
        name: "basic" (unchanged), "rot", or "[rot-]back-{rand,image,white,lined,squared}".
        backgrounds: where the patches of back-image come from.
        max_angle: rotation is uniform in [0, max_angle), in radians.

    Raises:
        ValueError: unknown name, or back-image without backgrounds.
    """

    def __init__(self, name: str, backgrounds: Backgrounds | None = None, max_angle: float = 2 * math.pi) -> None:
        if name not in VARIATIONS:
            raise ValueError(f"data.variation={name}: choose one of {', '.join(VARIATIONS)}")
        if name.endswith("image") and backgrounds is None:
            raise ValueError(f"variation {name} needs photographs: pass backgrounds=Backgrounds(photographs('train'))")
        self.name, self.backgrounds, self.max_angle = name, backgrounds, max_angle
        self.rotates = name.startswith("rot")
        self.background = name.rpartition("back-")[2] if "back-" in name else None

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Applies the variation, drawing anew for every image.

        Args:
            images: float (N, 1, H, W) in [0, 1], light ink on black.
            generator: on the images' device; the same state gives the same result.

        Returns:
            The same shape, dtype and range; for back-white, -lined and -squared dark ink on light paper.
        """
        if self.rotates:
            angles = torch.rand(len(images), generator=generator, device=images.device) * self.max_angle
            images = warp(images, rotation(angles))
        if self.background is None:
            return images
        if self.background == "rand":
            behind = random_bytes(tuple(images.shape), images.device, generator)
        elif self.background == "image" and self.backgrounds is not None:
            behind = self.backgrounds.sample(len(images), generator)
        else:
            return draw_paper(images, self.background, generator)
        behind = behind.to(images.dtype).div_(255)
        return behind.lerp_(torch.ones((), dtype=images.dtype, device=images.device).expand_as(behind), images)

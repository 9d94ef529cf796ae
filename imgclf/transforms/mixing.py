"""Random transforms that blend the images of a batch, and their labels, with one another."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from imgclf.core.validation import Probability, checked
from imgclf.transforms.draws import per_image, uniform


class Mixing(ABC):
    """With probability ``p``, replaces a part of an image by the same part of another image, its partner."""

    @checked
    def __init__(self, p: Probability) -> None:
        self.p = p

    def __bool__(self) -> bool:
        return self.p > 0

    @abstractmethod
    def partner_share(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """float (N, 1, 1, 1) or (N, 1, H, W) in [0, 1]: the partner's share, of the whole image or of each pixel."""

    def __call__(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Calls ``mix`` with this transform alone."""
        return mix([self], images, labels, num_classes, generator)


class MixUp(Mixing):
    """Blends an image with its partner, whose share is uniform in [0, 1] (Zhang et al. 2018).

    Example:
        >>> images, targets = MixUp(p=0.5)(images, labels, 10, torch.Generator().manual_seed(0))
    """

    def partner_share(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return per_image(uniform(1, images, generator)[0])


class CutMix(Mixing):
    """Pastes a rectangle of the partner, whose share of the area is uniform in [0, 1] (Yun et al. 2019).

    The rectangle has the image's aspect ratio and any centre in the image; as in the paper, its share is drawn before
    it is cut off at the image's borders. The labels get the share that is left.

    Example:
        >>> images, targets = CutMix(p=0.5)(images, labels, 10, torch.Generator().manual_seed(0))
    """

    def partner_share(self, images: Tensor, generator: torch.Generator) -> Tensor:
        area, *centres = uniform(3, images, generator)[..., None]
        rows, columns = (
            ((torch.arange(length, device=images.device) + 0.5) / length - centre).abs() < area.sqrt() / 2
            for length, centre in zip(images.shape[2:], centres, strict=True)
        )
        return (rows[:, None, :, None] & columns[:, None, None, :]).to(images.dtype)


def mix(
    transforms: Sequence[Mixing], images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Applies at most one of the transforms to each image, each with its own probability.

    Args:
        transforms: their probabilities are at most 1 in sum.
        images: float (N, C, H, W).
        labels: int64 (N,).

    Returns:
        The images, and float labels (N, num_classes) whose rows sum to 1.
    """
    chance = per_image(uniform(1, images, generator)[0])
    partner = torch.randperm(len(images), generator=generator, device=images.device)
    share, low = torch.zeros_like(chance), 0.0
    for transform in transforms:
        high = low + transform.p
        share = torch.where((chance >= low) & (chance < high), transform.partner_share(images, generator), share)
        low = high
    targets = F.one_hot(labels, num_classes).to(images.dtype)
    return images.lerp(images[partner], share), targets.lerp(targets[partner], share.mean((1, 2, 3))[:, None])

"""Several transforms as one; what the data module applies to training batches on their device."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from imgclf.transforms.mixing import Mixing, mix
from imgclf.transforms.spatial import SpatialTransform, fused


class Compose:
    """Applies transforms in their order; consecutive spatial transforms share one interpolation.

    Args:
        transforms: each a callable (images, generator) -> images, or a ``Mixing``. The attribute of this name has
            those that are on, which means true.

    Raises:
        ValueError: the probabilities of mixing transforms are more than 1 in sum.

    Example:
        >>> augment = Compose([RandomAffine(degrees=15), RandomFlip(p=0.5), MixUp(p=0.2)])
        >>> images = augment(images, generator)
        >>> images, targets = augment.mix(images, labels, num_classes=10, generator=generator)
    """

    def __init__(self, transforms: Sequence[Callable[..., Any]] = ()) -> None:
        self.transforms = [transform for transform in transforms if transform]
        self._mixing = [transform for transform in self.transforms if isinstance(transform, Mixing)]
        self._steps: list[Callable[..., Tensor]] = []
        others = [transform for transform in self.transforms if not isinstance(transform, Mixing)]
        for are_spatial, group in groupby(others, lambda transform: isinstance(transform, SpatialTransform)):
            neighbours: list[Any] = list(group)
            self._steps += [partial(fused, neighbours)] if are_spatial and len(neighbours) > 1 else neighbours
        if sum(transform.p for transform in self._mixing) > 1:
            given = " and ".join(f"p={transform.p} of {type(transform).__name__}" for transform in self._mixing)
            raise ValueError(f"{given}: an image gets one of them, give at most 1 in sum")

    def __bool__(self) -> bool:
        return bool(self.transforms)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Applies all but the mixing transforms to float images (N, C, H, W) in [0, 1], on the generator's device."""
        for step in self._steps:
            images = step(images, generator)
        return images

    def mix(
        self, images: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Applies the mixing transforms, as ``mixing.mix`` does; returns its arguments if none is on."""
        return mix(self._mixing, images, labels, num_classes, generator) if self._mixing else (images, labels)


def compose(**named: Callable[..., Any] | None) -> Compose:
    """Composes transforms in the order they are named; None leaves one out. conf/augmentation is instantiated by it.

    Raises:
        ValueError: a value is no transform, or the probabilities of mixing transforms are more than 1 in sum.

    Example:
        >>> augment = compose(affine=RandomAffine(degrees=15), flip=RandomFlip(p=0.5))
        >>> images = augment(images, torch.Generator().manual_seed(0))
    """
    for name, transform in named.items():
        if transform is not None and not callable(transform):
            raise ValueError(f"{name}={transform}: give a transform with a _target_, or null")
    return Compose([transform for transform in named.values() if transform is not None])

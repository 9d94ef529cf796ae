"""What networks share: their base, and a fast dropout."""

import torch
from torch import Tensor, nn

from imgclf.core.rebuild import Rebuildable
from imgclf.core.rng import random_bytes
from imgclf.core.validation import Rate, checked


class Network(Rebuildable, nn.Module):
    """An nn.Module that a checkpoint can rebuild.

    The constructor of a subclass takes ``image_shape`` (channels, height, width) and ``num_classes``, then arguments of
    its own. All are numbers, strings or lists of these, because a checkpoint keeps nothing else. ``forward`` maps float
    images (N, C, H, W) to logits (N, num_classes). For data of two classes, ``num_classes`` is 1: the only logit is the
    second class's.

    Attributes:
        statistics: mean and standard deviation of each channel that pretrained weights expect; None for random weights.
    """

    statistics: tuple[list[float], list[float]] | None = None

    def begin_epoch(self, epoch: int) -> None:
        """Is called in training mode before each epoch (from 0), and once more when training starts or is resumed."""


class Dropout(nn.Dropout):
    """Dropout whose mask is drawn as random bytes. On a CPU, that is several times as fast as torch's Dropout.

    ``p`` is rounded to a multiple of 1/256, and is at most 255/256.
    """

    @checked
    def __init__(self, p: Rate = 0.5) -> None:
        super().__init__(min(round(p * 256), 255) / 256)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        if torch.compiler.is_compiling():  # the compiler fuses torch's dropout with its neighbours
            return super().forward(input)
        keep = random_bytes(tuple(input.shape), input.device) >= round(self.p * 256)
        return input * keep.to(input.dtype).mul_(1 / (1 - self.p))

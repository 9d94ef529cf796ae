"""Layers that torch has in a slower form."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgclf.core.rng import random_bytes


class Dropout(nn.Module):
    """Dropout whose mask comes from random bytes, several times as fast on a CPU as torch's.

    Args:
        p: share of values set to zero, in [0, 1), rounded to a multiple of 1/256 (up to 255/256); the rest is scaled by
            1 / (1 - p).
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not isinstance(p, int | float) or not 0 <= p < 1:
            raise ValueError(f"model.dropout={p}: give a share from 0 up to, not including, 1")
        self.p = min(round(p * 256), 255) / 256

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        if torch.compiler.is_compiling():  # which makes one kernel of torch's
            return F.dropout(x, self.p)
        keep = random_bytes(tuple(x.shape), x.device) >= round(self.p * 256)
        return x * keep.to(x.dtype).mul_(1 / (1 - self.p))

    def extra_repr(self) -> str:
        return f"p={self.p}"

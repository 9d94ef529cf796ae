"""Seeds derived from keys, so that randomness depends on (seed, epoch, step) and never on history."""

import numpy as np
import torch
from torch import Tensor


def derive(*key: int) -> int:
    """A 63-bit seed that is a fixed function of non-negative integers (numpy's SeedSequence)."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device``, seeded by ``derive(*key)``."""
    return torch.Generator(device).manual_seed(derive(*key))


def random_bytes(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """uint8 of ``shape``, uniform on 0..255.

    Drawn eight at a time as 64-bit integers: on a CPU about ten times as fast as one draw a byte.
    """
    size = int(np.prod(shape))
    words = torch.empty((size + 7) // 8, dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=generator).view(torch.uint8)[:size].view(shape)

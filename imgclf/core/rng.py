"""Seeds derived from keys, so that randomness depends on (seed, epoch, step) and never on history."""

import zlib

import numpy as np
import torch
from torch import Tensor


def derive_seed(stream: str, *key: int) -> int:
    """A 63-bit seed that is a fixed function of what it is for and of non-negative integers (numpy's SeedSequence).

    The stream and the key's length are part of it: SeedSequence alone pads keys with zeros.
    """
    entropy = (zlib.crc32(stream.encode()), len(key), *key)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def generator(stream: str, *key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on ``device``, seeded by ``derive_seed(stream, *key)``."""
    return torch.Generator(device).manual_seed(derive_seed(stream, *key))


def random_bytes(shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None) -> Tensor:
    """uint8 of ``shape``, uniform on 0..255."""
    if device.type not in ("cpu", "cuda"):  # others have no 64-bit draws
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=generator)
    size = int(np.prod(shape))
    # On a CPU, eight bytes a draw are about five times as fast as one.
    words = torch.empty((size + 7) // 8, dtype=torch.int64, device=device)
    return words.random_(-(2**63), None, generator=generator).view(torch.uint8)[:size].view(shape)

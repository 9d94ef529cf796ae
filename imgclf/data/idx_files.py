"""MNIST and the data sets that torchvision reads like it."""

import math
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FETCH = "delete it and run again to fetch it, or copy a good one there"
IDX_DTYPES = {8: "u1", 12: ">i4"}  # of numbers in idx files


def read_idx(file: Path) -> Tensor:
    """The numbers of an idx file; it is not read unless it is as long as its header says, whatever that is."""
    kind, shape = idx_header(file)
    numbers = np.fromfile(file, kind, offset=4 + 4 * len(shape)).reshape(shape)
    return torch.from_numpy(numbers.astype(kind.newbyteorder("="), copy=False))


def idx_header(file: Path) -> tuple[np.dtype, tuple[int, ...]]:
    """What an idx file holds; raises ValueError if it is none, or longer or shorter than that."""
    with file.open("rb") as content:
        magic = content.read(4)
        known = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in IDX_DTYPES and 1 <= magic[3] <= 3
        sizes = content.read(4 * magic[3]) if known else b""
    if not known or len(sizes) < 4 * magic[3]:
        raise ValueError(f"{file}: damaged or not an idx file; {FETCH}")
    kind, shape = np.dtype(IDX_DTYPES[magic[2]]), struct.unpack(f">{magic[3]}I", sizes)
    size, wanted = file.stat().st_size, 4 + len(sizes) + kind.itemsize * math.prod(shape)
    if size != wanted or 0 in shape:
        raise ValueError(f"{file}: damaged, {size:,} bytes, but {shape} of them take {wanted:,}; {FETCH}")
    return kind, shape

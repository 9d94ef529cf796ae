"""Samplers of whole batches: each item is the tensor of rows that one indexing operation turns into a batch."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from imgclf.core import rng


class TrainBatchSampler(Sampler[Tensor]):
    """Draws the rows of the training batches. Their order depends on (seed, epoch) alone.

    All processes draw the same order, and each takes an equal part of every batch. The last batch of an epoch leaves
    out the rows that do not divide evenly. It is left out itself where a process would get a single row, which batch
    normalisation cannot work with.

    Args:
        batch_size: number of images in a batch, of all processes together; a multiple of ``world``.
        epoch: called at the start of each epoch; it returns the epoch's number, also in a resumed run.
        weights: float (size,); rows are drawn with replacement, in proportion to them. By default each is drawn once.
        rank, world: the number of this process, from 0, and the number of processes.
        start: called at the start of each epoch; it returns how many batches an earlier session has trained on already.
        device: the device of the yielded rows.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        *,
        seed: int,
        epoch: Callable[[], int],
        weights: Tensor | None = None,
        rank: int = 0,
        world: int = 1,
        start: Callable[[], int] = lambda: 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size % world:
            raise ValueError(f"batch_size={batch_size}: give a multiple of {world}, the number of processes")
        self.size, self.batch_size, self.seed, self.epoch, self.weights = size, batch_size, seed, epoch, weights
        self.rank, self.world, self.start, self.device = rank, world, start, device

    def __len__(self) -> int:
        full_batches, rest = divmod(self.size, self.batch_size)
        return full_batches + (rest >= 2 * self.world)

    def __iter__(self) -> Iterator[Tensor]:
        generator = rng.generator("order", self.seed, self.epoch())
        if self.weights is None:
            order = torch.randperm(self.size, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.size, replacement=True, generator=generator)
        batches = order.to(self.device).split(self.batch_size)[: len(self)]
        for batch in batches[self.start() :]:
            share = len(batch) // self.world
            yield batch[self.rank * share : (self.rank + 1) * share]


class EvalBatchSampler(Sampler[Tensor]):
    """Yields all rows in order. With several processes, every row belongs to one of them, and none is repeated.

    All processes yield the same number of batches, so their batches may have one row more than ``batch_size``.

    Args:
        batch_size: number of images in a batch, of each process.
        rank, world, device: as of ``TrainBatchSampler``. Each process needs an image.
    """

    def __init__(
        self, size: int, batch_size: int, *, rank: int = 0, world: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        if size < world:
            raise ValueError(f"{size} images to evaluate are too few for {world} processes: each needs one")
        self.size, self.batch_size, self.rank, self.world, self.device = size, batch_size, rank, world, device

    def __len__(self) -> int:
        return math.ceil(self.size // self.world / self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        own_rows = torch.arange(self.size, device=self.device).tensor_split(self.world)[self.rank]
        yield from own_rows.tensor_split(len(self))

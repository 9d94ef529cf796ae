"""Draws batches: a sampler's item is the tensor of rows that one indexing operation turns into a whole batch."""

import math
import signal
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from imgclf.core import rng
from imgclf.data.datasets import ImageDataset

MAX_GPU_SHARE = 0.25  # of a GPU's free memory; a larger dataset stays in the computer's memory


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

    ``batch_size`` counts the images of each process. All processes yield the same number of batches, so their batches
    may have one row more.
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


def make_loader(
    dataset: ImageDataset, sampler: TrainBatchSampler | EvalBatchSampler, num_workers: int, device: torch.device
) -> DataLoader:
    """A loader of the sampler's batches. A dataset that fits on the GPU moves there: drawing is then almost free."""
    on_gpu = num_workers == 0 and fits_on_gpu(dataset, device)
    if on_gpu:
        dataset, sampler.device = dataset.to(device), device
    return BatchLoader(
        dataset,
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=_leave_signals_to_the_run,
        pin_memory=device.type == "cuda" and not on_gpu,
    )


def fits_on_gpu(dataset: ImageDataset, device: torch.device) -> bool:
    """Whether ``device`` is a GPU with enough free memory to hold the dataset."""
    return device.type == "cuda" and dataset.nbytes <= MAX_GPU_SHARE * torch.cuda.mem_get_info(device)[0]


class BatchLoader(DataLoader):
    """A DataLoader that asks its sampler for rows only when the first batch is wanted.

    With workers, DataLoader asks as soon as the iterator is made, and Lightning makes the iterator before a resumed run
    knows its epoch. Without workers, DataLoader would search every batch for values to convert to tensors.
    """

    def __iter__(self) -> Iterator:  # pyrefly: ignore[bad-override]
        if self.num_workers or self.pin_memory:
            yield from super().__iter__()
        else:
            yield from map(self.dataset.__getitem__, self.sampler)


def _leave_signals_to_the_run(worker: int) -> None:
    """Keeps a worker alive when Ctrl-C or a cluster's signal reaches it too: the run's last step waits for its batch.

    A second SIGTERM does end the worker: a process that could not stop its workers otherwise sends it.
    """
    for name in filter(None, (signal.SIGINT, getattr(signal, "SIGUSR1", None))):
        signal.signal(name, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))

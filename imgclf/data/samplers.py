"""Images in memory and the order they are read in."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from imgclf.core import rng


class BatchSampler(Sampler[Tensor]):
    """Yields the row numbers of one batch after another, in order, or shuffled by (seed, epoch) alone.

    ``epoch`` is asked when an epoch starts, so that a resumed run draws what an undisturbed one would have drawn; and
    so is ``start``, the number of batches of this epoch that an earlier session has trained on, which are left out.
    They are on ``device``. With ``weights``, float (size,), rows are drawn with replacement, in proportion to them.

    Of ``world`` processes, number ``rank`` gets its share; all get as many batches. Shuffled, ``batch_size`` is that
    of all processes together: they draw the same order, and each takes an equal part of every batch. Of the last
    batch of an epoch, images that do not divide evenly are left out, and a single one a process, which batch
    normalisation cannot do with. In order, ``batch_size`` is each process's
    own, or one more; every row belongs to one of them, and none is repeated.

    Raises:
        ValueError: ``batch_size`` is no multiple of ``world`` (shuffled), or rows are too few for all (in order).
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        epoch: Callable[[], int] | None = None,
        weights: Tensor | None = None,
        rank: int = 0,
        world: int = 1,
        start: Callable[[], int] = lambda: 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if epoch is not None and batch_size % world:
            raise ValueError(f"data.batch_size={batch_size}: give a multiple of {world}, the number of processes")
        if epoch is None and size < world:
            raise ValueError(f"{size} images to evaluate are too few for {world} processes: each needs one")
        self.size, self.batch_size, self.seed, self.epoch, self.weights = size, batch_size, seed, epoch, weights
        self.rank, self.world, self.start, self.device = rank, world, start, device

    def __len__(self) -> int:
        if self.epoch is None:
            return -(-(self.size // self.world) // self.batch_size)  # by the smallest share, so that none runs dry
        whole, rest = divmod(self.size, self.batch_size)
        return whole + (rest >= 2 * self.world)

    def __iter__(self) -> Iterator[Tensor]:
        if self.epoch is None:
            share = torch.arange(self.size, device=self.device).tensor_split(self.world)[self.rank]
            yield from share.tensor_split(len(self))
            return
        generator, start = rng.generator("order", self.seed, self.epoch()), self.start()
        if self.weights is None:
            order = torch.randperm(self.size, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.size, replacement=True, generator=generator)
        for batch in order.to(self.device).split(self.batch_size)[start : len(self)]:
            each = len(batch) // self.world
            yield batch[self.rank * each : (self.rank + 1) * each]

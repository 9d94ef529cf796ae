"""Images in memory and the order they are read in."""

import hashlib
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from imgclf import seed as seeding

DIGEST = 16  # bytes


class Images(Dataset):
    """Labelled images; indexing with a tensor of rows gives a whole batch in one operation.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), class indices from 0.
        rows: int64 (M,), the rows that belong to this split; all by default.
    """

    def __init__(self, images: Tensor, labels: Tensor, rows: Tensor | None = None) -> None:
        self.images, self.labels = images, labels
        self.rows = torch.arange(len(labels)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice | int) -> tuple[Tensor, Tensor]:
        rows = self.rows[index]
        if rows.ndim == 0:
            return self.images[rows], self.labels[rows]
        return self.images.index_select(0, rows), self.labels.index_select(0, rows)  # nine times as fast as [rows]

    @property
    def targets(self) -> Tensor:
        """int64 (M,): the labels of this split."""
        return self.labels[self.rows]

    @property
    def nbytes(self) -> int:
        """Of the images of this split."""
        return len(self) * math.prod(self.images.shape[1:])

    def to(self, device: torch.device) -> "Images":
        """This split alone, in the device's memory."""
        images, labels = self[:]
        return Images(images.to(device), labels.to(device), torch.arange(len(self), device=device))

    def digests(self) -> list[bytes]:
        """A hash of each image of this split: the same pixels, the same hash."""
        images = self.images.contiguous().numpy()
        return [digest(images[row]) for row in self.rows.tolist()]

    def examples(self, count: int = 50) -> tuple[Tensor, Tensor]:
        """``count`` images, or nearly, with their labels: as many of each class, class by class, always the same."""
        order = torch.randperm(len(self), generator=seeding.generator("examples"))
        labels = self.targets[order]
        classes = labels.unique()
        each = -(-count // len(classes))
        return self[torch.cat([order[labels == label][:each] for label in classes])[:count]]


def digest(image: np.ndarray) -> bytes:
    """16 bytes that stand for the pixels of an image, uint8 and contiguous."""
    return hashlib.blake2b(image.data, digest_size=DIGEST).digest()


class Batches(Sampler[Tensor]):
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
        generator, start = seeding.generator("order", self.seed, self.epoch()), self.start()
        if self.weights is None:
            order = torch.randperm(self.size, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.size, replacement=True, generator=generator)
        for batch in order.to(self.device).split(self.batch_size)[start : len(self)]:
            each = len(batch) // self.world
            yield batch[self.rank * each : (self.rank + 1) * each]


def fit_in_box(images: Tensor, box: int = 20, canvas: int = 28) -> Tensor:
    """Small digits as MNIST has them: scaled to a centred ``box`` on a black ``canvas``, bicubically.

    Args:
        images: uint8 (N, C, H, W).

    Returns:
        uint8 (N, C, canvas, canvas).
    """
    scaled = torch.nn.functional.interpolate(images.float(), (box, box), mode="bicubic").round().clamp(0, 255)
    margin = (canvas - box) // 2
    return torch.nn.functional.pad(scaled.to(torch.uint8), (margin, canvas - box - margin) * 2)

"""Images in memory and the order they are read in."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from imgclf import seed as seeding


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
        return self.images[rows], self.labels[rows]

    @property
    def targets(self) -> Tensor:
        """int64 (M,): the labels of this split."""
        return self.labels[self.rows]

    def examples(self, count: int = 50) -> tuple[Tensor, Tensor]:
        """``count`` images, or nearly, with their labels: as many of each class, class by class, always the same."""
        order = torch.randperm(len(self), generator=seeding.generator("examples"))
        labels = self.targets[order]
        classes = labels.unique()
        each = -(-count // len(classes))
        return self[torch.cat([order[labels == label][:each] for label in classes])[:count]]


class Batches(Sampler[Tensor]):
    """Yields the row numbers of one batch after another, in order, or shuffled by (seed, epoch) alone.

    ``epoch`` is asked when an epoch starts, so that a resumed run draws what an undisturbed one would have drawn.
    With ``weights``, float (size,), rows are drawn with replacement, in proportion to them.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        seed: int = 0,
        epoch: Callable[[], int] | None = None,
        weights: Tensor | None = None,
    ) -> None:
        self.size, self.batch_size, self.seed, self.epoch, self.weights = size, batch_size, seed, epoch, weights

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        if self.epoch is None:
            order = torch.arange(self.size)
        else:
            generator = seeding.generator("order", self.seed, self.epoch())
            if self.weights is None:
                order = torch.randperm(self.size, generator=generator)
            else:
                order = torch.multinomial(self.weights, self.size, replacement=True, generator=generator)
        yield from order.split(self.batch_size)


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

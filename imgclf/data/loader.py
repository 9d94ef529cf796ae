"""Loads the batches of a dataset: by indexing in this process, by worker processes, or from a GPU's own memory."""

import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from imgclf.data.datasets import ImageDataset

MAX_GPU_SHARE = 0.25  # of a GPU's free memory; a larger dataset stays in the computer's memory


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


def leave_signals_to_the_run(worker: int) -> None:
    """Keeps a worker alive when Ctrl-C or a cluster's signal reaches it too: the run's last step waits for its batch.

    A second SIGTERM does end the worker: a process that could not stop its workers otherwise sends it.
    """
    for name in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))

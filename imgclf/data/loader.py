"""Loads the batches of a dataset: by indexing in this process, by worker processes, or from a GPU's own memory."""

import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from imgclf.data.datasets import ImageDataset
from imgclf.data.samplers import EvalBatchSampler, TrainBatchSampler

MAX_GPU_SHARE = 0.25  # of a GPU's free memory; a larger dataset stays in the computer's memory


def make_loader(
    dataset: ImageDataset, sampler: TrainBatchSampler | EvalBatchSampler, num_workers: int, device: torch.device
) -> DataLoader:
    """A loader of the sampler's items, each of which is a whole batch; 0 workers: they are read in this process.

    A dataset that fits into the memory of the GPU that trains is moved there, where drawing a batch costs next to
    nothing; the sampler's device is set to it.
    """
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
    """Keeps a worker alive when Ctrl-C or a cluster's signal reaches it too.

    The run ends after the current step, and this step waits for the worker's batch. A second SIGTERM does end the
    worker: a process that could not stop its workers otherwise sends it.
    """
    for name in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))

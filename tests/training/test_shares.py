"""Several processes share the batches of training and the images of evaluation, and count metrics together."""

import threading

import pytest
import torch
from torchmetrics import Metric

from imgclf.core.metrics import EpochMetrics
from imgclf.data.samplers import EvalBatchSampler, TrainBatchSampler


def training(size, batch_size, weights=None, rank=0, world=1) -> TrainBatchSampler:
    return TrainBatchSampler(size, batch_size, seed=5, epoch=lambda: 3, weights=weights, rank=rank, world=world)


def evaluation(size, batch_size, rank=0, world=1) -> EvalBatchSampler:
    return EvalBatchSampler(size, batch_size, rank=rank, world=world)


def test_a_batch_of_all_processes_is_the_batch_of_one():
    for size, batch_size, world in ((100, 10, 2), (101, 12, 3), (103, 8, 8), (7, 4, 4), (50, 50, 2), (4, 8, 2)):
        for weights in (None, torch.ones(size)):
            alone = list(training(size, batch_size, weights))
            loaders = [training(size, batch_size, weights, rank, world) for rank in range(world)]
            shares = [list(loader) for loader in loaders]
            assert {len(share) for share in shares} == {len(loader) for loader in loaders} == {len(shares[0])}
            whole = [torch.cat(parts) for parts in zip(*shares, strict=True)]
            assert all(len({len(part) for part in parts}) == 1 for parts in zip(*shares, strict=True))
            rest = size % batch_size
            assert sum(map(len, alone)) == (size if rest != 1 else size - 1)
            assert sum(map(len, whole)) == size - (rest % world if rest >= 2 * world else rest)
            for batch, expected in zip(whole, alone, strict=False):
                assert torch.equal(batch, expected[: len(batch)])


def test_every_image_is_evaluated_by_one_process():
    for size, batch_size, world in ((100, 10, 2), (101, 12, 3), (103, 1, 8), (7, 4, 7), (1001, 1000, 2), (9, 2, 4)):
        shares = [list(evaluation(size, batch_size, rank=rank, world=world)) for rank in range(world)]
        assert {len(share) for share in shares} == {len(evaluation(size, batch_size, rank=0, world=world))}
        assert all(0 < len(batch) <= batch_size + 1 for share in shares for batch in share)
        assert torch.cat([batch for share in shares for batch in share]).tolist() == list(range(size))
    with pytest.raises(ValueError, match=r"3 images .* 4 processes"):
        evaluation(3, 10, world=4)
    with pytest.raises(ValueError, match=r"batch_size=10: .* multiple of 4"):
        training(100, 10, world=4)


@pytest.mark.parametrize("classes", [2, 10])
def test_metrics_are_of_all_processes(classes):
    """Two threads stand for two processes, and gather what torchmetrics has them gather."""
    generator = torch.Generator().manual_seed(classes)
    probabilities = torch.rand(57, classes, generator=generator).softmax(1)
    labels, losses = torch.randint(classes, (57,), generator=generator), torch.rand(57, generator=generator)
    expected = EpochMetrics("val", classes)
    expected.update(losses, probabilities, labels)
    expected = expected.compute(0.45)

    meeting, slots, found = threading.Barrier(2, timeout=30), [None, None], [None, None]

    def process(rank: int, part: slice) -> None:
        def gather(value, group=None):
            slots[rank] = value
            meeting.wait()
            values = list(slots)
            meeting.wait()
            return values

        metrics = EpochMetrics("val", classes)
        for metric in (module for module in metrics.modules() if isinstance(module, Metric)):
            metric.dist_sync_fn, metric.distributed_available_fn = gather, lambda: True
        rows = torch.arange(57)[part]
        for chunk in rows.tensor_split(3):
            metrics.update(losses[chunk], probabilities[chunk], labels[chunk])
        found[rank] = metrics.compute(0.45)

    threads = [
        threading.Thread(target=process, args=(rank, part)) for rank, part in enumerate((slice(20), slice(20, 57)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for values in found:
        assert values.keys() == expected.keys()
        for name, value in values.items():
            assert float(value) == pytest.approx(float(expected[name]), rel=1e-6), name

from types import SimpleNamespace

import pytest
import torch

from imgclf.core import rng
from imgclf.data.datasets import ImageDataset
from imgclf.data.digits import Digits
from imgclf.data.samplers import EvalBatchSampler, TrainBatchSampler
from tests.data.counted import Counted, numbers


def make_trainer(epoch: int = 0, batches_done: int = 0, **attributes) -> SimpleNamespace:
    """What a data module asks of Lightning's Trainer."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=batches_done))
    loop = SimpleNamespace(restarting=False, epoch_loop=SimpleNamespace(batch_progress=progress))
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer = SimpleNamespace(current_epoch=epoch, fit_loop=loop, strategy=strategy, global_rank=0, world_size=1)
    vars(trainer).update(attributes)
    return trainer


def test_batches_of_images_that_stay_on_a_gpu_are_the_same(monkeypatch):
    def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
        data = Counted(batch_size=7, eval_batch_size=4)
        data.trainer = make_trainer(epoch=2)
        return [*data.train_dataloader(), *data.val_dataloader()]

    expected = batches()
    monkeypatch.setattr("imgclf.data.samplers.fits_on_gpu", lambda images, device: True)
    resident = batches()
    assert len(resident) == len(expected) == 13 + 3
    for found, batch in zip(resident, expected, strict=True):
        assert all(map(torch.equal, found, batch))
    images = ImageDataset(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10), torch.tensor([7, 3]))
    moved = images.to(torch.device("cpu"))
    assert moved.images.flatten().tolist() == moved.targets.tolist() == [7, 3]
    assert moved.nbytes == images.nbytes == 2


def test_order_depends_on_seed_and_epoch_only():
    epoch = [0]
    batches = TrainBatchSampler(10, 4, seed=1, epoch=lambda: epoch[0])
    first = torch.cat(list(batches)).tolist()
    assert sorted(first) == list(range(10))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert len(batches) == 3
    assert torch.cat(list(batches)).tolist() == first
    epoch[0] = 1
    assert torch.cat(list(batches)).tolist() != first
    assert torch.cat(list(TrainBatchSampler(10, 4, seed=2, epoch=lambda: 0))).tolist() != first
    assert torch.cat(list(EvalBatchSampler(10, 4))).tolist() == list(range(10))


def test_a_resumed_epoch_leaves_out_the_batches_that_were_trained_on():
    data = Counted(batch_size=30)
    whole = list(data.train_dataloader())
    data.trainer = make_trainer(batches_done=2)
    assert len(list(data.train_dataloader())) == len(whole) == 3
    data.trainer.fit_loop.restarting = True
    (last,) = data.train_dataloader()
    assert all(map(torch.equal, last, whole[2]))


@pytest.mark.parametrize("batch_size", [1, 7, 40, 1000])
def test_evaluation_sees_every_image_once_whatever_the_batch_size(batch_size):
    batches = list(Counted(eval_batch_size=batch_size).eval_dataloader("test"))
    assert torch.cat([images[:, 0, 0, 0] for images, _ in batches]).tolist() == list(range(40))


def test_training_batches_need_no_trainer():
    data = Counted(batch_size=30)
    data.setup("fit")
    images = torch.cat([batch for batch, _ in data.train_dataloader()])
    assert sorted(images[:, 0, 0, 0].tolist()) == sorted(numbers(data.dataset("train")))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(workers):
    loader = Digits(num_workers=workers).eval_dataloader("val")
    images, labels = (torch.cat(part) for part in zip(*loader, strict=True))
    expected = Digits().dataset("val")
    assert torch.equal(images, expected[:][0])
    assert torch.equal(labels, expected.targets)


def test_training_noise_depends_on_seed_epoch_and_step_only():
    class Noise(Counted):
        def augment(self, images, generator):
            return torch.rand(images.shape, generator=generator)

    data = Noise(seed=1)
    data.trainer = make_trainer(epoch=3, batches_done=5, training=True)
    batch = data.dataset("val")[:4]
    first, labels = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(labels, batch[1])
    assert torch.equal(first, torch.rand(4, 1, 2, 2, generator=rng.generator("noise", 1, 3, 5, 0)))
    data.trainer = make_trainer(epoch=3, batches_done=6, training=True)
    assert not torch.equal(first, data.on_after_batch_transfer(batch, 0)[0])
    data.trainer.training = False
    assert data.on_after_batch_transfer(batch, 0)[0].dtype == torch.uint8

import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from imgclf.checkpoints.metadata import datamodule_classes
from imgclf.core import rng
from imgclf.core.names import SPLITS
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset, fit_in_box
from imgclf.data.digits import Digits
from imgclf.data.image_folder import ImageFolder
from imgclf.data.noisy import NoisyImages
from imgclf.data.samplers import BatchSampler
from imgclf.data.torchvision_data import TorchvisionImages


class Counted(ImageDataModule):
    """100 training and 40 test images whose first pixel is their number; counts how often each part is read."""

    class_names = ("a", "b")

    def __init__(self, **options):
        super().__init__(**options)
        self.reads: list[str] = []

    def load(self, split):
        self.reads.append(split)
        count = 100 if split == "train" else 40
        images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 1, 2, 2)
        return images, torch.arange(count) % 2


def numbers(images: ImageDataset) -> list[int]:
    return images[:][0][:, 0, 0, 0].tolist()


def test_a_batch_is_one_indexing_operation():
    images = ImageDataset(
        torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10), torch.tensor([7, 3, 5])
    )
    batch, labels = images[torch.tensor([2, 0])]
    assert labels.tolist() == [5, 7]
    assert batch.flatten().tolist() == [5, 7]
    assert len(images) == 3


def test_examples_show_every_class():
    labels = torch.tensor([2] * 30 + [0] * 5 + [1] * 30)
    images = ImageDataset(torch.arange(65, dtype=torch.uint8).view(65, 1, 1, 1), labels)
    shown, classes = images.examples(30)
    assert classes.tolist() == [0] * 5 + [1] * 10 + [2] * 10
    assert labels[shown.flatten().long()].tolist() == classes.tolist()
    assert torch.equal(images.examples(30)[0], shown)
    assert len(images.examples(4)[1]) == 4


def test_batches_of_images_that_stay_on_a_gpu_are_the_same(monkeypatch):
    def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
        data = Counted(batch_size=7, eval_batch_size=4)
        loop, strategy = SimpleNamespace(restarting=False), SimpleNamespace(root_device=torch.device("cpu"))
        data.trainer = SimpleNamespace(current_epoch=2, fit_loop=loop, strategy=strategy, global_rank=0, world_size=1)
        return [*data.train_dataloader(), *data.val_dataloader()]

    expected = batches()
    monkeypatch.setattr("imgclf.data.datamodule._fits", lambda images, device: True)
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
    batches = BatchSampler(10, 4, seed=1, epoch=lambda: epoch[0])
    first = torch.cat(list(batches)).tolist()
    assert sorted(first) == list(range(10))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert len(batches) == 3
    assert torch.cat(list(batches)).tolist() == first
    epoch[0] = 1
    assert torch.cat(list(batches)).tolist() != first
    assert torch.cat(list(BatchSampler(10, 4, seed=2, epoch=lambda: 0))).tolist() != first
    assert torch.cat(list(BatchSampler(10, 4))).tolist() == list(range(10))


@pytest.mark.parametrize("split_seed", [0, 1, 2])
@pytest.mark.parametrize("val_fraction", [0.1, 0.25, 0.5])
def test_splits_are_disjoint_stratified_and_fixed(split_seed, val_fraction):
    data = Counted(split_seed=split_seed, val_fraction=val_fraction, batch_size=10)
    train, val = numbers(data.dataset("train")), numbers(data.dataset("val"))
    assert sorted(train + val) == list(range(100))
    assert len(val) == round(100 * val_fraction)
    assert abs(data.dataset("val").targets.double().mean() - 0.5) < 0.021
    again = Counted(split_seed=split_seed, val_fraction=val_fraction, batch_size=10, seed=99)
    assert numbers(again.dataset("val")) == val
    assert numbers(Counted(split_seed=split_seed + 10).dataset("val")) != numbers(Counted().dataset("val"))


def numbered(self, split):
    """As many images as MNIST has, no two alike."""
    count, first = (60_000, 0) if split == "train" else (10_000, 60_000)
    numbers = torch.arange(first, first + count)
    pixels = torch.stack([numbers // 256**2, numbers // 256 % 256, numbers % 256, numbers * 0], 1)
    return pixels.to(torch.uint8).view(-1, 1, 2, 2), numbers % 10


MODULES = {
    "digits": (Digits, {}),
    "torchvision": (TorchvisionImages, {}),
    "noisy digits": (NoisyImages, {"base": "digits"}),
    "noisy": (NoisyImages, {"variation": "back-rand"}),
    "larochelle": (NoisyImages, {"variation": "rot", "protocol": "larochelle"}),
    "folder": (ImageFolder, {"root": "whole"}),
    "folder with groups": (ImageFolder, {"root": "whole", "group_pattern": r"p\d+"}),
    "folder of parts": (ImageFolder, {"root": "parts"}),
    "folder of parts, val joined": (ImageFolder, {"root": "parts", "val_folder": False, "group_pattern": r"p\d+"}),
}


def test_every_data_module_is_among_those_that_are_looked_at():
    known = {f"{kind.__module__}.{kind.__qualname__}" for kind, _ in MODULES.values()}
    assert known == {name for name in datamodule_classes() if name.startswith("imgclf.data.")}


@pytest.mark.parametrize("name", MODULES)
def test_no_image_is_in_two_splits_whatever_the_seeds(name, tmp_path, monkeypatch):
    kind, options = MODULES[name]
    if kind is ImageFolder:
        for part in ("whole", "parts/train", "parts/val", "parts/test"):
            for i in range(40):
                file = tmp_path / part / "ab"[i % 2] / f"p{i // 4}_{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(zlib.crc32(str(file).encode())).integers(0, 256, (4, 4), dtype=np.uint8)
                Image.fromarray(pixels).save(file)
        options = {**options, "data_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache"), "image_size": 4}
    for source in (TorchvisionImages, NoisyImages) if options.get("base") != "digits" else ():
        monkeypatch.setattr(source, "load", numbered)
    tests = set()
    for seed, split_seed, val_fraction in ((0, 0, 0.1), (1, 0, 0.3), (0, 1, 0.3), (2, 7, 0.5)):
        data = kind(**options, seed=seed, split_seed=split_seed, val_fraction=val_fraction, batch_size=2)
        parts = [set(data.dataset(split).digests()) for split in SPLITS]
        assert all(parts)
        assert len(set.union(*parts)) == sum(map(len, parts)) == sum(len(data.dataset(split)) for split in SPLITS)
        tests.add(frozenset(parts[2]))
    assert len(tests) == 1  # the test images are the same for all


def test_setup_for_fit_reads_training_data_once_and_never_the_test_part():
    data = Counted(batch_size=10)
    data.setup("fit")
    data.setup("fit")
    data.mean_and_std()
    assert data.reads == ["train"]
    data.dataset("test")
    assert data.reads == ["train", "test"]


def test_statistics_are_those_of_the_training_images():
    data = Counted()
    pixels = data.dataset("train")[:][0].double() / 255
    mean, deviation = data.mean_and_std()
    assert mean == [pytest.approx(float(pixels.mean()))]
    assert deviation == [pytest.approx(float(pixels.std()))]


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size=0"),
        ({"eval_batch_size": -1}, r"data\.eval_batch_size=-1"),
        ({"val_fraction": 0.0}, r"data\.val_fraction=0"),
        ({"val_fraction": 1.0}, r"data\.val_fraction=1"),
        ({"val_fraction": float("nan")}, r"data\.val_fraction=nan"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Counted(**options)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]), r"labels outside 0\.\.1"),
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, -1, 0]), r"labels outside 0\.\.1"),
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1]), "4 images but 3 labels"),
        (torch.zeros(0, 1, 2, 2, dtype=torch.uint8), torch.tensor([], dtype=torch.int64), "0 images but 0 labels"),
        (torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 1, 0]), "images must be uint8"),
        (torch.zeros(4, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 1, 0]), "images must be uint8"),
        (torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0.0, 1, 1, 0]), "labels int64"),
    ],
)
def test_images_and_labels_that_do_not_fit_together_are_refused(images, labels, message, monkeypatch):
    monkeypatch.setattr(Counted, "load", lambda self, split: (images, labels))
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=f"the {split} part of the data: .*{message}"):
            Counted().dataset(split)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match=r"data\.batch_size=91 is larger than the 90 training images"):
        Counted(batch_size=91).setup("fit")
    with pytest.raises(ValueError, match=r"data\.val_fraction=0.999 of 100 images leaves a split empty"):
        Counted(val_fraction=0.999).dataset("val")
    assert len(Counted(val_fraction=0.001).dataset("val")) == 1
    with pytest.raises(ValueError, match="choose one of train, val, test"):
        Counted().dataset("validation")


def test_digits_look_like_mnist_s():
    data = Digits()
    counts = {split: len(data.dataset(split)) for split in ("train", "val", "test")}
    assert counts == {"train": 1293, "val": 144, "test": 360}
    assert data.image_shape == (1, 28, 28)
    images = data.dataset("train")[:][0]
    assert images.dtype == torch.uint8
    assert images.max() == 255
    assert not images[..., :4].any()
    assert not images[..., -4:].any()


def test_fit_in_box_keeps_a_flat_image_flat():
    boxed = fit_in_box(torch.full((1, 1, 8, 8), 200, dtype=torch.uint8), 20, 28)
    assert boxed.shape == (1, 1, 28, 28)
    assert (boxed[..., 4:24, 4:24] == 200).all()
    assert int(boxed.sum()) == 200 * 400


def test_training_noise_depends_on_seed_epoch_and_step_only():
    class Epoch:
        training, global_rank = True, 0
        current_epoch = 3

        class fit_loop:
            class epoch_loop:
                class batch_progress:
                    class current:
                        ready = 5

    class Noise(Counted):
        def augment(self, images, generator):
            return torch.rand(images.shape, generator=generator)

    data = Noise(seed=1)
    data.trainer = Epoch
    batch = data.dataset("val")[:4]
    first, labels = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(labels, batch[1])
    assert torch.equal(first, torch.rand(4, 1, 2, 2, generator=rng.generator("noise", 1, 3, 5, 0)))
    Epoch.fit_loop.epoch_loop.batch_progress.current.ready = 6
    assert not torch.equal(first, data.on_after_batch_transfer(batch, 0)[0])
    Epoch.training = False
    assert data.on_after_batch_transfer(batch, 0)[0].dtype == torch.uint8

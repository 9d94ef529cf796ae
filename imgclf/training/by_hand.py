"""What the benchmark compares with: training, evaluation and reading without any framework; and made-up images."""

import copy
import json
import statistics
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import Compose, Grayscale, Normalize, Resize, ToTensor

from imgclf.models.classifier import Classifier

SPEEDS = "by_hand.json"  # in the run folder
PHOTOGRAPH_SIZE = (640, 480)  # width, height


class ByHand:
    """A training loop over uint8 images (N, C, H, W) on the device, in which a batch is one indexing operation."""

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        loss: nn.Module,
        batch_size: int,
        mixed: bool,
        images: Tensor,
        labels: Tensor,
    ) -> None:
        self.device = images.device
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.optimizer, self.loss = optimizer(self.network.parameters()), loss
        self.batch_size, self.mixed, self.images, self.labels = batch_size, mixed, images, labels

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch's batches in random order: images, float in [0, 1], and labels."""
        for rows in torch.randperm(len(self.images), device=self.device).split(self.batch_size):
            yield self.images[rows].float().div_(255), self.labels[rows]

    def epoch(
        self,
        batches: Iterable[tuple[Tensor, Tensor]] | None = None,
        lap: Callable[[str], object] = lambda phase: None,
    ) -> float:
        """Trains for an epoch, on ``batches`` instead of its own if they are given. Returns images per second.

        At the end of each phase of a step, ``lap`` is called with the phase's name.
        """
        total, correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        seen, start = 0, time.perf_counter()
        for images, labels in batches or self.batches():
            images, labels, seen = images.to(self.device), labels.to(self.device), seen + len(labels)
            lap("data")
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
                logits = self.network((images - 0.13) / 0.31)
            loss = self.loss(logits.float(), labels)
            lap("forward")
            self.optimizer.zero_grad()
            loss.backward()
            lap("backward")
            self.optimizer.step()
            total, correct = total + loss.detach(), correct + (logits.argmax(1) == labels).sum()
            lap("optimizer")
        _ = float(total), float(correct)  # waits for the device
        return seen / (time.perf_counter() - start)


class TrainByHandToo(pl.Callback):
    """After every epoch of a run, trains the same network for an epoch by hand, so that both meet the same machine.

    The run folder's by_hand.json gets the images per second: "by hand", of each epoch but the first, and "image by
    image", which reads them from torchvision's MNIST in ``data_dir``, with the transforms called for every image.
    """

    def __init__(self, data_dir: str) -> None:
        self.data_dir, self.speeds = data_dir, []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Classifier) -> None:  # pyrefly: ignore[bad-override]
        images, labels = trainer.datamodule.dataset("train")[:]  # pyrefly: ignore[missing-attribute]
        self.loop = ByHand(
            copy.deepcopy(pl_module.network),
            pl_module.optimizer,
            copy.deepcopy(pl_module.loss),
            trainer.datamodule.batch_size,  # pyrefly: ignore[missing-attribute]
            trainer.precision == "bf16-mixed",
            images.to(pl_module.device),
            labels.to(pl_module.device),
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.speeds.append(self.loop.epoch())

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        slow = self.loop.epoch(image_by_image(self.data_dir, self.loop.batch_size))
        speeds = {"by hand": statistics.median(self.speeds[1:]), "image by image": slow}
        (Path(trainer.default_root_dir) / SPEEDS).write_text(json.dumps(speeds))


def image_by_image(data_dir: str, batch_size: int) -> DataLoader:
    """6,000 images of MNIST, for each of which torchvision's transforms are called, as in most templates."""
    images = MNIST(data_dir, transform=Compose([ToTensor(), Normalize((0.1307,), (0.3081,))]))
    return DataLoader(Subset(images, range(min(len(images), 6000))), batch_size, shuffle=True)


@torch.inference_mode()
def evaluate_by_hand(network: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """The accuracy of a network on uint8 images (N, C, H, W), which it sees in batches of 1,000."""
    answers = [network(chunk.to(device).float().div_(255)).softmax(1).cpu() for chunk in images.split(1000)]
    return float((torch.cat(answers).argmax(1) == labels).float().mean())


def read_by_hand(root: Path, size: int, workers: int) -> int:
    """Reads torchvision's ImageFolder as grey images of ``size`` x ``size`` in worker processes; returns their number.

    It decodes all pixels of a file and then scales them, as most templates do.
    """
    images = ImageFolder(root, Compose([Grayscale(), Resize((size, size)), ToTensor()]))
    return sum(len(labels) for _, labels in DataLoader(images, 64, num_workers=workers))


def write_mnist(folder: Path, count: int) -> None:
    """Writes random images as the files of MNIST and Fashion-MNIST: ``count`` to train with, a sixth to test with."""
    random = np.random.default_rng(0)
    for stem, size in (("train", count), ("t10k", count // 6)):
        images = random.integers(0, 256, (size, 28, 28), np.uint8)
        labels = random.integers(0, 10, size, np.uint8)
        for data in ("MNIST", "FashionMNIST"):
            raw = folder / data / "raw"
            raw.mkdir(parents=True, exist_ok=True)
            for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
                header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
                (raw / f"{stem}-{kind}-ubyte").write_bytes(header + array.tobytes())


def write_photographs(folder: Path, count: int) -> None:
    """Writes JPEG files with large shapes and some grain, as photographs have them."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        shapes = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).resize(
            PHOTOGRAPH_SIZE, Image.Resampling.BICUBIC
        )
        grain = random.normal(0, 8, (*PHOTOGRAPH_SIZE[::-1], 1))
        Image.fromarray((np.asarray(shapes) + grain).clip(0, 255).astype(np.uint8)).save(folder / f"{number:04}.jpg")

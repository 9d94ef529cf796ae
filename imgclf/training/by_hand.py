"""Training and evaluation without any framework, on images held in memory: what the benchmark compares with."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from imgclf.checkpoints.metadata import network_classes
from imgclf.checkpoints.weights import build_network
from imgclf.core.device import choose_precision


class ByHand:
    """The training loop of a recipe, which its resolved configuration describes.

    ``size`` random images lie on the device, and a batch is one indexing operation.
    """

    def __init__(self, config: dict[str, Any], device: torch.device, size: int) -> None:
        layout = {"image_shape": [1, 28, 28], "num_classes": 10, "_convert_": "all"}
        factory = instantiate(config["model"], **layout, _partial_=True, _execution_whitelist_=network_classes())
        network = build_network(factory)
        self.network = network.to(device).to(memory_format=torch.channels_last)
        optimizer = instantiate(config["optimizer"], _convert_="all", _execution_whitelist_=("torch.optim.*",))
        self.optimizer = optimizer(network.parameters())
        self.loss = nn.CrossEntropyLoss(label_smoothing=config["loss"]["label_smoothing"])
        self.mixed = choose_precision(config["trainer"]["precision"], device) == "bf16-mixed"
        self.batch_size, self.device = config["data"]["batch_size"], device
        self.images = torch.randint(0, 256, (size, 1, 28, 28), dtype=torch.uint8, device=device)
        self.labels = torch.randint(0, 10, (size,), device=device)

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


def image_by_image(data_dir: Path, batch_size: int) -> DataLoader:
    """6,000 images of MNIST, for each of which torchvision's transforms are called, as in most templates."""
    images = MNIST(str(data_dir), transform=Compose([ToTensor(), Normalize((0.1307,), (0.3081,))]))
    return DataLoader(Subset(images, range(min(len(images), 6000))), batch_size, shuffle=True)


@torch.inference_mode()
def evaluate_by_hand(network: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> float:
    """The accuracy of a network on uint8 images (N, C, H, W), which it sees in batches of 1,000."""
    answers = [network(chunk.to(device).float().div_(255)).softmax(1).cpu() for chunk in images.split(1000)]
    return float((torch.cat(answers).argmax(1) == labels).float().mean())

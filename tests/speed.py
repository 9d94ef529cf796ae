"""The speed of parts, for developers: python -m tests.speed [full], in a checkout.

It measures the phases of a training step, the variations, and how time and memory grow with the data.
Only the ratios within one run compare. Nothing else should run on the machine meanwhile.
"""

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import CrossEntropyLoss
from torch.optim import Adam
from torch.utils.benchmark import Timer

from imgclf import benchmark
from imgclf.benchmark import Row, combined, speed, train
from imgclf.core.device import choose_device, choose_precision
from imgclf.models.cnn import CNN
from imgclf.training.by_hand import ByHand, write_mnist
from imgclf.transforms.backgrounds import Backgrounds, photographs
from imgclf.transforms.variations import VARIATIONS, Variation

GROWTH = (1, 2, 4, 8, 16)  # quarters of the benchmark's images
PHASES = ("data", "variation", "forward", "backward", "optimizer")


def main(full: bool = False) -> dict[str, Any]:
    """Measures everything and prints each table when it is ready. Returns the rows of each table."""
    device, rounds = choose_device("auto"), 5 if full else 3
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_mnist(folder / "data", benchmark.IMAGES)
        measurements = {
            "phases of a training step": lambda: phases(folder, device),
            "variations": lambda: variations(device),
            "growth with the data": lambda: combined([growth(folder, turn % 2 == 1) for turn in range(rounds)]),
        }
        return benchmark.measure(measurements, device)


class Stopwatch:
    """Adds up seconds by phase, the device's work included.

    Attributes:
        seconds: the name of a phase to its seconds so far.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.device, self.last = device, time.perf_counter()

    def lap(self, phase: str) -> None:
        """Ends a phase, which began where the one before ended."""
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()
        now = time.perf_counter()
        self.seconds[phase] += now - self.last
        self.last = now


def vary(loop: ByHand, variation: Variation, watch: Stopwatch) -> Iterator[tuple[Tensor, Tensor]]:
    """The loop's batches after a variation."""
    generator = torch.Generator(loop.device).manual_seed(0)
    for images, labels in loop.batches():
        watch.lap("data")
        images = variation(images, generator)
        watch.lap("variation")
        yield images, labels


def loop_by_hand(device: torch.device) -> ByHand:
    """The loop of ``noisy_mnist_cnn`` on random images."""
    images = torch.randint(0, 256, (benchmark.IMAGES, 1, 28, 28), dtype=torch.uint8, device=device)
    labels = torch.randint(0, 10, (len(images),), device=device)
    mixed = choose_precision("auto", device) == "bf16-mixed"
    return ByHand(CNN(), partial(Adam, fused=True), CrossEntropyLoss(), 256, mixed, images, labels)


def phases(folder: Path, device: torch.device) -> list[Row]:
    """The share of each phase in a training step of train.py, measured in the loop by hand; the rest is framework."""
    recipe = ("experiment=noisy_mnist_cnn", "data.variation=rot-back-image")
    run = train(folder, *recipe, "trainer.max_epochs=3", "evaluate_on=[val]", f"data_dir={folder / 'data'}")
    variation = Variation("rot-back-image", Backgrounds(photographs("train")))
    loop = loop_by_hand(device)
    loop.epoch(vary(loop, variation, Stopwatch(device)))  # the first epoch is slower
    watch = Stopwatch(device)
    loop.epoch(vary(loop, variation, watch), watch.lap)
    step = loop.batch_size / speed(run)
    steps = -(-benchmark.IMAGES // loop.batch_size)
    parts = {phase: watch.seconds[phase] / steps for phase in PHASES}
    parts["framework"] = step - sum(parts.values())
    return [{"phase": phase, "ms": 1000 * value, "share of the step": value / step} for phase, value in parts.items()]


def variations(device: torch.device) -> list[Row]:
    """The speed of each variation on batches of 256."""
    generator, images = torch.Generator(device).manual_seed(0), torch.rand(256, 1, 28, 28, device=device)
    rows = []
    for name in VARIATIONS[1:]:
        variation = Variation(name, Backgrounds(photographs("train")) if name.endswith("image") else None)
        timer = Timer("variation(images, generator)", globals=locals(), num_threads=torch.get_num_threads())
        rows.append({"variation": name, "images/s": len(images) / timer.blocked_autorange(min_run_time=0.3).median})
    return rows


def growth(folder: Path, backwards: bool) -> list[Row]:
    """Time and memory by the size of the training set. Ratios are within one round because a machine's speed drifts."""
    runs = {}
    for factor in GROWTH[:: -1 if backwards else 1]:
        write_mnist(folder / "growing", factor * benchmark.IMAGES // 4)
        epochs = f"trainer.max_epochs={2 + GROWTH[-1] // factor}"  # every size trains on about as many images
        options = ("experiment=mnist_cnn", epochs, "evaluate_on=[val]", "callbacks.dashboard=null")
        runs[factor] = train(folder, *options, f"data_dir={folder / 'growing'}")
    epochs = {
        factor: statistics.median(after["seconds"] - before["seconds"] for before, after in pairwise(run["rows"]))
        for factor, run in runs.items()
    }
    return [
        {
            "training images": factor * benchmark.IMAGES // 4 * 9 // 10,
            "seconds an epoch": epochs[factor],
            "against the smallest, an image": epochs[factor] / factor / epochs[1],
            "peak MiB": runs[factor]["memory"],
        }
        for factor in GROWTH
    ]


if __name__ == "__main__":
    main(full="full" in sys.argv[1:])

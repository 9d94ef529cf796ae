"""How fast this machine trains and evaluates, against loops written by hand: python -m imgclf.benchmark [full]."""

import csv
import json
import os
import platform
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import OmegaConf
from rich import get_console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.benchmark import Timer
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from imgclf import cli
from imgclf.checkpoints.metadata import network_classes
from imgclf.core.device import choose_device, choose_precision, shorten_steps
from imgclf.core.files import write_file
from imgclf.data.torchvision_data import TorchvisionImages
from imgclf.evaluation.evaluate import evaluate
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.models.mlp import MLP
from imgclf.transforms.backgrounds import Backgrounds, photographs
from imgclf.transforms.variations import VARIATIONS, Variation

USAGE = """Measures training and evaluation here, in ratios to loops written by hand on the same network, batch,
precision and threads, in alternation; prints tables and writes them as JSON.

    python -m imgclf.benchmark [quick|full] [to=benchmark.json]

  quick                  twenty minutes on 2 cores: speed, phases of a step, variations, start, growth with the data,
                         and where MNIST is (IMGCLF_DATA_DIR, else ./data) the time to 98.93% and 99% test accuracy
  full                   the same in more rounds and seeds
  to=FILE                a new file for the figures; none by default

Only ratios within one run compare: nothing else should run on the machine meanwhile.
"""
PROJECT = Path(__file__).parent.parent
RECIPES = ("mnist_cnn", "fashion_mlp")
# Of the training part that is made up; speed does not depend on what they show. Neither this nor a half, a quarter or
# a multiple is 60,000: files of MNIST's own size are compared with the published ones.
IMAGES = 56_000
GROWTH = (1, 2, 4, 8, 16)  # quarters of them


def main(arguments: list[str]) -> None:
    """Takes the command line's arguments; see ``USAGE``."""
    if arguments in (["--help"], ["-h"]):
        print(USAGE, end="")
        return
    words = [word for word in arguments if not word.startswith("to=")]
    target = next((Path(word.removeprefix("to=")) for word in arguments if word.startswith("to=")), None)
    if len(words) > 1 or not set(words) <= {"quick", "full"}:
        raise ValueError(f"{' '.join(words)}: python -m imgclf.benchmark takes quick or full, and to=FILE.json")
    if target and target.exists():
        raise FileExistsError(f"to={target} exists: name a new file")
    figures = benchmark(full=words == ["full"])
    if target:
        write_file(target, json.dumps(figures, indent=2) + "\n")
        print(f"figures are in {target}")


def benchmark(full: bool = False) -> dict[str, Any]:
    """All figures, printed as they come: of each table its rows."""
    device, rounds = choose_device("auto"), 5 if full else 3
    shorten_steps(device)
    figures: dict[str, Any] = {
        "machine": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
    }
    get_console().print(figures["machine"])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_images(place / "data", IMAGES)
        figures["start"] = _table("Seconds from the shell", _start(place))
        for title, measure in (
            ("Training", lambda: _training(place, device, rounds)),
            ("Evaluation", lambda: _evaluation(place, device, rounds)),
            ("Phases of a training step, share of the time", lambda: _phases(place, device)),
            ("Variations", lambda: _variations(device)),
            ("Growth with the data", lambda: _growth(place, rounds)),
        ):
            figures[title.partition(",")[0].lower()] = _table(title, measure())
        real = Path(os.environ.get("IMGCLF_DATA_DIR", "data")) / "MNIST" / "raw"
        if real.is_dir():
            figures["accuracy"] = _table("Accuracy on MNIST, and the time it takes", _accuracy(place, 5 if full else 1))
        else:
            get_console().print(f"no MNIST in {real}: the time to an accuracy is not measured")
    return figures


def write_images(folder: Path, count: int) -> None:
    """MNIST's and Fashion-MNIST's files in ``folder`` with random images: ``count`` to train, a sixth to test."""
    random = np.random.default_rng(0)
    for stem, size in (("train", count), ("t10k", count // 6)):
        images, labels = (
            random.integers(0, 256, (size, 28, 28), np.uint8),
            random.integers(0, 10, size).astype(np.uint8),
        )
        for data in ("MNIST", "FashionMNIST"):
            raw = folder / data / "raw"
            raw.mkdir(parents=True, exist_ok=True)
            for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
                header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
                (raw / f"{stem}-{kind}-ubyte").write_bytes(header + array.tobytes())


def train(place: Path, *options: str, data_dir: Path | None = None) -> dict[str, Any]:
    """Runs train.py in a process of its own, with epochs enough for its speed to settle.

    Returns:
        Its resolved configuration, its metrics, metrics.csv as rows, the process's seconds, and its peak memory in MiB.

    Raises:
        OSError: it failed; the message holds what it said.
    """
    with tempfile.TemporaryDirectory(dir=place) as folder:
        words = [sys.executable, str(PROJECT / "train.py"), *options, f"hydra.run.dir={folder}/run"]
        if data_dir:
            words.append(f"data_dir={data_dir}")
        log, start = Path(folder) / "log", time.perf_counter()
        with log.open("w") as said:
            process = subprocess.Popen(words, stdout=said, stderr=said)
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            raise OSError(f"{' '.join(words)} failed: {log.read_text().strip()}")
        run = Path(folder) / "run"
        with (run / "metrics.csv").open() as file:
            rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
        return {
            "config": OmegaConf.to_container(OmegaConf.load(run / "config.yaml")),
            "metrics": json.loads((run / "metrics.json").read_text()),
            "rows": rows,
            "seconds": seconds,
            "memory": usage.ru_maxrss / 1024,
        }


class ByHand:
    """A recipe's training loop without any framework: the data on the device, one indexing operation a batch.

    Args:
        config: the recipe's, as ``train`` returns it.
        device: what to train on.
        variation: of noisy data.
    """

    PHASES = ("data", "variation", "forward", "backward", "optimizer")

    def __init__(self, config: dict[str, Any], device: torch.device, variation: Variation | None = None) -> None:
        network = instantiate(
            config["model"],
            image_shape=[1, 28, 28],
            num_classes=10,
            _convert_="all",
            _execution_whitelist_=network_classes(),
        )
        self.network = network.to(device, memory_format=torch.channels_last)
        factory = instantiate(config["optimizer"], _convert_="all", _execution_whitelist_=("torch.optim.*",))
        self.optimizer = factory(network.parameters())
        self.mixed = choose_precision(config["trainer"]["precision"], device) == "bf16-mixed"
        self.batch_size, self.device, self.variation = config["data"]["batch_size"], device, variation
        self.images = torch.randint(0, 256, (IMAGES, 1, 28, 28), dtype=torch.uint8, device=device)
        self.labels = torch.randint(0, 10, (IMAGES,), device=device)
        self.generator = torch.Generator(device).manual_seed(0)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """An epoch's images in [0, 1], in random order, and their labels."""
        for rows in torch.randperm(IMAGES, device=self.device).split(self.batch_size):
            yield self.images[rows].float().div_(255), self.labels[rows]

    def epoch(self, watch: "Stopwatch | None" = None, batches: Iterable[tuple[Tensor, Tensor]] | None = None) -> float:
        """Trains for an epoch, of ``batches`` or its own; images a second."""
        lap = watch.lap if watch else lambda phase: None
        total, correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        seen, start = 0, time.perf_counter()
        for images, labels in batches or self.batches():
            images, labels, seen = images.to(self.device), labels.to(self.device), seen + len(labels)
            lap("data")
            if self.variation:
                images = self.variation(images, self.generator)
            lap("variation")
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed):
                logits = self.network((images - 0.13) / 0.31)
            loss = F.cross_entropy(logits.float(), labels)
            lap("forward")
            self.optimizer.zero_grad()
            loss.backward()
            lap("backward")
            self.optimizer.step()
            total, correct = total + loss.detach(), correct + (logits.argmax(1) == labels).sum()
            lap("optimizer")
        _ = float(total), float(correct)  # waits for the device
        return seen / (time.perf_counter() - start)


class Stopwatch:
    """Seconds by phase, the device's work included."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.device, self.last = device, time.perf_counter()

    def lap(self, phase: str) -> None:
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()
        now = time.perf_counter()
        self.seconds[phase] += now - self.last
        self.last = now


def _start(place: Path) -> list[dict[str, Any]]:
    def seconds(*words: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], cwd=place, capture_output=True, check=False)
        return time.perf_counter() - start

    script = str(PROJECT / "train.py")
    tiny = (script, "data=digits", "model=mlp", "trainer.max_epochs=1")
    commands = {
        "import torch": ("-c", "import torch"),
        "import lightning.pytorch": ("-c", "import lightning.pytorch"),
        "train.py --help": (script, "--help"),
        "train.py with a misspelt option": (script, "trainer.max_epoch=1"),
        "train.py, one epoch of an MLP on 1,797 digits": tiny,
    }
    return [{"what": name, "seconds": min(seconds(*words) for _ in range(2))} for name, words in commands.items()]


def _training(place: Path, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for recipe in RECIPES:
        ours, hand, template, memory = [], [], [], []
        for _ in range(rounds):
            run = train(
                place, f"experiment={recipe}", "trainer.max_epochs=4", "evaluate_on=[val]", data_dir=place / "data"
            )
            loop = ByHand(run["config"], device)
            loop.epoch()
            hand.append(statistics.median(loop.epoch() for _ in range(3)))
            template.append(loop.epoch(batches=_image_by_image(place / "data", loop.batch_size)))
            ours.append(statistics.median(row["images_per_second"] for row in run["rows"][1:]))
            memory.append(run["memory"])
        rows.append(
            {
                "recipe": recipe,
                "train.py, images/s": statistics.median(ours),
                "by hand": statistics.median(hand),
                "ratio": statistics.median(a / b for a, b in zip(ours, hand, strict=True)),
                "by hand, image by image": statistics.median(template),
                "ratio to that": statistics.median(a / b for a, b in zip(ours, template, strict=True)),
                "peak MiB": statistics.median(memory),
            }
        )
    return rows


def _image_by_image(folder: Path, batch_size: int) -> DataLoader:
    """What most templates have (pytorch/examples, lightning-hydra-template): torchvision's data set and transforms,
    called for every image; 6,000 of them.
    """
    images = MNIST(str(folder), transform=Compose([ToTensor(), Normalize((0.1307,), (0.3081,))]))
    return DataLoader(Subset(images, range(min(len(images), 6000))), batch_size, shuffle=True)


def _accuracy(place: Path, seeds: int) -> list[dict[str, Any]]:
    """The real MNIST, in whole processes; the shares are of seeds whose test accuracy is at least that."""
    rows = []
    for recipe in ("mnist_fast", "mnist_cnn"):
        options = f"experiment={recipe}", "evaluate_on=[val,test]"
        runs = [train(place, *options, f"seed={seed}") for seed in range(1, seeds + 1)]
        reached = [run["metrics"]["test/accuracy"] for run in runs]
        rows.append(
            {
                "recipe": recipe,
                "seeds": seeds,
                "test accuracy": statistics.mean(reached),
                "98.93%": statistics.mean(accuracy >= 0.9893 for accuracy in reached),
                "99%": statistics.mean(accuracy >= 0.99 for accuracy in reached),
                "training, s": statistics.median(run["metrics"]["train/seconds"] for run in runs),
                "process, s": statistics.median(run["seconds"] for run in runs),
            }
        )
    return rows


def _evaluation(place: Path, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    data, rows = TorchvisionImages("MNIST", str(place / "data")), []
    images, labels = data.dataset("test")[:]
    for name, network in (("cnn", CNN()), ("mlp", MLP())):
        predictor = Predictor(Classifier(network, data.class_names).to(device), (1, 28, 28))
        ours, hand = [], []
        for _ in range(3 * rounds):
            ours.append(_seconds(evaluate, predictor, data, "test"))
            hand.append(_seconds(_evaluate_by_hand, network, images, labels, device))
        speeds = [len(labels) / statistics.median(times) for times in (ours, hand)]
        rows.append(
            {
                "network": name,
                "evaluate, images/s": speeds[0],
                "by hand, images/s": speeds[1],
                "ratio": speeds[0] / speeds[1],
            }
        )
    return rows


@torch.inference_mode()
def _evaluate_by_hand(network: nn.Module, images: Tensor, labels: Tensor, device: torch.device) -> float:
    answers = [network(chunk.to(device).float().div_(255)).softmax(1).cpu() for chunk in images.split(1000)]
    return float((torch.cat(answers).argmax(1) == labels).float().mean())


def _phases(place: Path, device: torch.device) -> list[dict[str, Any]]:
    noisy = ("experiment=noisy_mnist_cnn", "data.variation=rot-back-image", "trainer.max_epochs=3", "evaluate_on=[val]")
    run = train(place, *noisy, data_dir=place / "data")
    loop = ByHand(run["config"], device, Variation("rot-back-image", Backgrounds(photographs("train"))))
    loop.epoch()
    watch = Stopwatch(device)
    loop.epoch(watch)
    step = loop.batch_size / statistics.median(row["images_per_second"] for row in run["rows"][1:])
    steps = -(-IMAGES // loop.batch_size)
    seconds = {phase: watch.seconds[phase] / steps for phase in ByHand.PHASES}
    seconds["framework"] = step - sum(seconds.values())
    return [{"phase": phase, "ms": 1000 * value, "share of the step": value / step} for phase, value in seconds.items()]


def _variations(device: torch.device) -> list[dict[str, Any]]:
    generator, images = torch.Generator(device).manual_seed(0), torch.rand(256, 1, 28, 28, device=device)
    rows = []
    for name in VARIATIONS[1:]:
        variation = Variation(name, Backgrounds(photographs("train")) if name.endswith("image") else None)
        timer = Timer("variation(images, generator)", globals=locals(), num_threads=torch.get_num_threads())
        rows.append({"variation": name, "images/s": len(images) / timer.blocked_autorange(min_run_time=0.3).median})
    return rows


def _growth(place: Path, rounds: int) -> list[dict[str, Any]]:
    """Every round has every size, and its ratios are of its own times: minutes apart, machines differ by more."""
    seconds, memory = defaultdict(list), defaultdict(list)
    for turn in range(rounds):
        for factor in GROWTH[:: -1 if turn % 2 else 1]:
            write_images(place / "growing", factor * IMAGES // 4)
            epochs = f"trainer.max_epochs={2 + GROWTH[-1] // factor}"  # of each about as many images
            options = ("experiment=mnist_cnn", epochs, "evaluate_on=[val]", "callbacks.dashboard=null")
            run = train(place, *options, data_dir=place / "growing")
            times = [after["seconds"] - before["seconds"] for before, after in pairwise(run["rows"])]
            seconds[factor].append(statistics.median(times))
            memory[factor].append(run["memory"])
    return [
        {
            "training images": factor * IMAGES // 4 * 9 // 10,
            "seconds an epoch": statistics.median(seconds[factor]),
            "against the smallest, an image": statistics.median(
                larger / factor / smallest for larger, smallest in zip(seconds[factor], seconds[1], strict=True)
            ),
            "peak MiB": statistics.median(memory[factor]),
        }
        for factor in GROWTH
    ]


def _seconds(call: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def _table(title: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:,.4g}" for value in row.values()))
    get_console().print(table)
    return rows


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))

"""How fast this machine trains and evaluates, against loops written by hand: python -m imgclf.benchmark [full]."""

import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from imgclf import cli
from imgclf.core.console import print_line, print_table
from imgclf.core.device import choose_device, shorten_steps
from imgclf.core.files import write_file
from imgclf.data.torchvision_data import TorchvisionImages
from imgclf.evaluation.evaluate import evaluate
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.models.mlp import MLP
from imgclf.training.by_hand import ByHand, evaluate_by_hand, image_by_image
from imgclf.training.random_runs import train, write_images

USAGE = """Measures training and evaluation on this machine, and compares them with loops written by hand, which use
the same network, batch, precision and threads, and run in alternation. Prints tables and writes them as JSON.

    python -m imgclf.benchmark [quick|full] [to=benchmark.json]

  quick                  some minutes on 2 cores: the speed of training and evaluation, and where MNIST is
                         (IMGCLF_DATA_DIR, else ./data) the time to 98.93% and 99% test accuracy
  full                   the same in more rounds and with more seeds
  to=FILE                a new file for the figures; by default there is none

Only the ratios within one run compare. Nothing else should run on the machine meanwhile.
"""
RECIPES = ("mnist_cnn", "fashion_mlp")
# The size of the random training set. Neither this nor a half, a quarter or a multiple of it is 60,000, because files
# of MNIST's own size are compared with the published ones.
IMAGES = 56_000

Row = dict[str, Any]  # of a table: what was measured comes first, numbers follow


def main(arguments: list[str]) -> None:
    """Runs the command; see ``USAGE`` for its arguments."""
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
    """Measures everything and prints each table when it is ready. Returns the rows of each table."""
    device, rounds = choose_device("auto"), 5 if full else 3
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_images(folder / "data", IMAGES)
        measurements: dict[str, Callable[[], list[Row]]] = {
            "training": lambda: combined([training(folder, device) for _ in range(rounds)]),
            "evaluation": lambda: evaluation(folder, device, 3 * rounds),
        }
        if (raw := Path(os.environ.get("IMGCLF_DATA_DIR", "data")) / "MNIST" / "raw").is_dir():
            seeds = range(1, 6 if full else 2)
            measurements["accuracy"] = lambda: combined(
                [accuracy(folder, seed, len(seeds)) for seed in seeds], statistics.mean
            )
        else:
            print_line(f"no MNIST in {raw}: the time to an accuracy is not measured")
        return measure(measurements, device)


def measure(measurements: dict[str, Callable[[], list[Row]]], device: torch.device) -> dict[str, Any]:
    """Names the machine, then measures table by table and prints each. Returns all of it by title."""
    shorten_steps(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    machine = {"device": name, "threads": torch.get_num_threads(), "torch": torch.__version__}
    figures: dict[str, Any] = {"machine": machine}
    print_line(", ".join(f"{name} {value}" for name, value in machine.items()))
    for title, rows_of in measurements.items():
        figures[title] = rows = rows_of()
        texts = ([value if isinstance(value, str) else f"{value:,.4g}" for value in row.values()] for row in rows)
        print_table(title.capitalize(), list(rows[0]), texts)
    return figures


def combined(rounds: list[list[Row]], average: Callable[[list[float]], float] = statistics.median) -> list[Row]:
    """One table of several that were measured alike: texts stay, numbers are averaged."""
    return [
        {
            name: first if isinstance(first, str) else average([row[name] for row in rows])
            for name, first in rows[0].items()
        }
        for rows in zip(*rounds, strict=True)
    ]


def training(folder: Path, device: torch.device) -> list[Row]:
    """The speed of recipes: by train.py, by hand, and by hand on images that are read one by one."""
    rows = []
    for recipe in RECIPES:
        options = (f"experiment={recipe}", "trainer.max_epochs=4", "evaluate_on=[val]", f"data_dir={folder / 'data'}")
        run = train(folder, *options)
        row = {"recipe": recipe, "train.py, images/s": speed(run)}
        loop = ByHand(run["config"], device, IMAGES)
        loop.epoch()  # the first epoch is slower
        row["by hand"] = statistics.median(loop.epoch() for _ in range(3))
        row["ratio"] = speed(run) / row["by hand"]
        row["by hand, image by image"] = loop.epoch(batches=image_by_image(folder / "data", loop.batch_size))
        row["ratio to that"] = speed(run) / row["by hand, image by image"]
        rows.append({**row, "peak MiB": run["memory"]})
    return rows


def evaluation(folder: Path, device: torch.device, rounds: int) -> list[Row]:
    """The speed of ``evaluate`` and of a loop by hand, in alternation."""
    data = TorchvisionImages("MNIST", str(folder / "data"))
    images, labels = data.dataset("test")[:]
    networks = {"cnn": CNN().to(device), "mlp": MLP().to(device)}

    def one_round(name: str) -> Row:
        predictor = Predictor(Classifier(networks[name], data.class_names).to(device), (1, 28, 28))
        ours = len(labels) / seconds(evaluate, predictor, data, "test")
        by_hand = len(labels) / seconds(evaluate_by_hand, networks[name], images, labels, device)
        return {"network": name, "evaluate, images/s": ours, "by hand, images/s": by_hand, "ratio": ours / by_hand}

    return combined([[one_round(name) for name in networks] for _ in range(rounds)])


def accuracy(folder: Path, seed: int, seeds: int) -> list[Row]:
    """Test accuracy on the real MNIST, whether it reaches a mark, and the time that a run takes: one of ``seeds``."""
    rows = []
    for recipe in ("mnist_fast", "mnist_cnn"):
        run = train(folder, f"experiment={recipe}", "evaluate_on=[val,test]", f"seed={seed}")
        reached = run["metrics"]["test/accuracy"]
        marks = {"98.93%": float(reached >= 0.9893), "99%": float(reached >= 0.99)}
        times = {"training, s": run["metrics"]["train/seconds"], "process, s": run["seconds"]}
        rows.append({"recipe": recipe, "seeds": seeds, "test accuracy": reached, **marks, **times})
    return rows


def speed(run: dict[str, Any]) -> float:
    """Images per second in the run's median epoch; the first epoch is slower and does not count."""
    return statistics.median(row["images_per_second"] for row in run["rows"][1:])


def seconds(call: Callable[..., object], *arguments: object) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))

"""How fast this machine starts, trains, evaluates and reads files: python -m imgclf.benchmark [quick|full]."""

import csv
import json
import os
import platform
import re
import statistics
import subprocess
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
from imgclf.data.memmap_cache import Form, decode_files
from imgclf.data.torchvision_data import TorchvisionImages
from imgclf.evaluation.evaluate import evaluate
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.models.mlp import MLP
from imgclf.training.by_hand import SPEEDS, evaluate_by_hand, read_by_hand, write_mnist, write_photographs

USAGE = """Measures this machine: from the shell to the first step, training,
evaluation, reading files. It compares them with loops written by hand of the
same network, batch, precision and threads. Prints tables and writes JSON.

    python -m imgclf.benchmark [quick|full] [to=benchmark.json]

  quick     80 seconds on 2 cores
  full      the same in more rounds, and where MNIST is (IMGCLF_DATA_DIR, else
            ./data) the time to 98.93% and 99% test accuracy
  to=FILE   a new file for the figures; by default there is none

Only the ratios within one run compare. Nothing else should run meanwhile.
"""
TRAIN = Path(__file__).parents[1] / "train.py"
RECIPES = {"mnist_cnn": 4, "fashion_mlp": 13}  # and how many epochs are trained
# The size of the random training set. Neither this nor a half, a quarter or a multiple of it is 60,000, because files
# of MNIST's own size are compared with the published ones.
IMAGES = 28_000
FILES, READ_SIZE, WORKERS = 400, 128, 4  # photographs, and how they are read

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
    device, rounds = choose_device("auto"), 3 if full else 1
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_mnist(folder / "data", IMAGES)
        measurements: dict[str, Callable[[], list[Row]]] = {
            "start": lambda: combined([start(folder) for _ in range(1 + rounds)]),
            "training": lambda: combined([training(folder) for _ in range(rounds)]),
            "evaluation": lambda: combined([evaluation(folder, device) for _ in range(3 * rounds)]),
            "files": lambda: combined([files(folder, device, turn) for turn in range(2 + rounds)]),
        }
        if full and (raw := Path(os.environ.get("IMGCLF_DATA_DIR", "data")) / "MNIST" / "raw").is_dir():
            measurements["accuracy"] = lambda: combined([accuracy(folder, seed) for seed in range(1, 6)])
        elif full:
            print_line(f"no MNIST in {raw}: the time to an accuracy is not measured")
        return measure(measurements, device)


def measure(measurements: dict[str, Callable[[], list[Row]]], device: torch.device) -> dict[str, Any]:
    """Names the machine, then measures table by table and prints each. Returns all of it by title."""
    shorten_steps(device)
    figures: dict[str, Any] = {"machine": machine(device)}
    for name, value in figures["machine"].items():
        print_line(f"{name}: {value}")
    for title, rows_of in measurements.items():
        figures[title] = rows = rows_of()
        texts = ([value if isinstance(value, str) else f"{value:,.4g}" for value in row.values()] for row in rows)
        print_table(title.capitalize(), list(rows[0]), texts)
    return figures


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures depend on: the processor, its instructions, threads, versions, and what else is running."""
    file = Path("/proc/cpuinfo")  # of Linux; elsewhere Python says what it knows
    said = file.read_text() if file.exists() else ""
    model, flags = (re.search(rf"^{name}\s*: (.*)", said, re.MULTILINE) for name in ("model name", "flags"))
    wide = [
        flag for flag in (flags[1].split() if flags else ()) if flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    ]
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "processor": model[1] if model else platform.processor() or "unknown",
        "instruction sets": " ".join(wide) or "unknown",
        **({"GPU": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": f"{load:.1f}, {'BUSY: times are too long, ratios less certain' if load > 1 else 'idle'}",
        "torch": torch.__version__,
    }


def combined(rounds: list[list[Row]]) -> list[Row]:
    """One table of several that were measured alike: texts stay, and of numbers there is the median."""
    return [
        {
            name: first if isinstance(first, str) else statistics.median(row[name] for row in rows)
            for name, first in rows[0].items()
        }
        for rows in zip(*rounds, strict=True)
    ]


def start(folder: Path) -> list[Row]:
    """Seconds that commands take, from the shell's point of view."""
    python, script = sys.executable, str(TRAIN)
    small = ("data=digits", "model=mlp", "trainer.max_epochs=1", f"hydra.run.dir={folder / 'first'}", "resume=true")
    commands = {
        "import torch": (python, "-c", "import torch"),
        "import lightning.pytorch": (python, "-c", "import lightning.pytorch"),
        "train.py --help": (python, script, "--help"),
        "train.py with a misspelt option": (python, script, "trainer.max_epoch=1"),
        "train.py to the first step": (python, script, *small),
    }
    return [{"what": name, "seconds": seconds(until, "folder:", words, folder)} for name, words in commands.items()]


def until(line: str, command: tuple[str, ...], folder: Path) -> None:
    """Waits until a command prints a line that begins so after its indent, or ends; then ends it."""
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        next((said for said in process.stdout or () if said.lstrip().startswith(line)), None)
        process.kill()


def training(folder: Path) -> list[Row]:
    """The speed of recipes: by train.py, by hand, and by hand on images that are read one by one."""
    rows = []
    for recipe, epochs in RECIPES.items():
        options = (f"trainer.max_epochs={epochs}", "evaluate_on=[val]", f"data_dir={folder / 'data'}")
        by_hand = "+callbacks.by_hand={_target_: imgclf.training.by_hand.TrainByHandToo, data_dir: '${data_dir}'}"
        run = train(folder, f"experiment={recipe}", *options, by_hand)
        ours, hand, slow = speed(run), run["by hand"]["by hand"], run["by hand"]["image by image"]
        row = {"recipe": recipe, "images/s": ours, "by hand": hand, "ratio": ours / hand}
        rows.append({**row, "one by one": slow, "ratio to that": ours / slow})
    return rows


def evaluation(folder: Path, device: torch.device) -> list[Row]:
    """The speed of ``evaluate`` and of a loop by hand, each with two networks."""
    data = TorchvisionImages("MNIST", str(folder / "data"))
    images, labels = data.dataset("test")[:]
    rows = []
    for name, network in {"cnn": CNN().to(device), "mlp": MLP().to(device)}.items():
        predictor = Predictor(Classifier(network, data.class_names).to(device), (1, 28, 28))
        evaluate_by_hand(network, images, labels, device)  # the first pass is slower
        ours = len(labels) / seconds(evaluate, predictor, data, "test")
        by_hand = len(labels) / seconds(evaluate_by_hand, network, images, labels, device)
        rows.append({"network": name, "images/s": ours, "by hand": by_hand, "ratio": ours / by_hand})
    return rows


def files(folder: Path, device: torch.device, turn: int) -> list[Row]:
    """The speed of predicting files and of building the decode cache, beside an epoch of torchvision's ImageFolder."""
    if not (root := folder / "photographs").exists():
        write_photographs(root / "all", FILES)
    paths = sorted((root / "all").iterdir())
    shape, names = (1, READ_SIZE, READ_SIZE), [path.name for path in paths]
    predictor = Predictor(Classifier(CNN(shape, 2).to(device), ["a", "b"]).to(device), shape)
    by_hand = len(paths) / seconds(read_by_hand, root, READ_SIZE, WORKERS)
    speeds = {
        "predict files": len(paths) / seconds(predictor.predict, paths),
        "build the decode cache": len(paths)
        / seconds(decode_files, paths, names, Form(shape), folder / f"cache{turn}", ""),
    }
    hand = f"ImageFolder, {WORKERS} workers"
    return [{"what": what, "files/s": ours, hand: by_hand, "ratio": ours / by_hand} for what, ours in speeds.items()]


def accuracy(folder: Path, seed: int) -> list[Row]:
    """Test accuracy on the real MNIST, whether it reaches a mark, and the time that a run takes."""
    rows = []
    for recipe in ("mnist_fast", "mnist_cnn"):
        run = train(folder, f"experiment={recipe}", "evaluate_on=[val,test]", f"seed={seed}")
        reached = run["metrics"]["test/accuracy"]
        marks = {"98.93%": float(reached >= 0.9893), "99%": float(reached >= 0.99)}
        times = {"training, s": run["metrics"]["train/seconds"], "process, s": run["seconds"]}
        rows.append({"recipe": recipe, "test accuracy": reached, **marks, **times})
    return rows


def train(folder: Path, *options: str) -> dict[str, Any]:
    """Runs train.py in a process of its own. OSError holds the output of one that failed.

    Returns:
        The "metrics" of metrics.json, the "rows" of metrics.csv, "by hand" of by_hand.json if there is one, the
        "seconds" that the process took, and its peak "memory" in MiB.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run, log, begin = Path(place) / "run", Path(place) / "log", time.perf_counter()
        command = [sys.executable, str(TRAIN), *options, f"hydra.run.dir={run}"]
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - begin
        if status:
            raise OSError(f"{' '.join(command)} failed: {log.read_text().strip()}")
        table, by_hand = csv.DictReader((run / "metrics.csv").read_text().splitlines()), run / SPEEDS
        return {
            "metrics": json.loads((run / "metrics.json").read_text()),
            "rows": [{name: float(value) for name, value in row.items() if value} for row in table],
            "by hand": json.loads(by_hand.read_text()) if by_hand.exists() else {},
            "seconds": took,
            "memory": usage.ru_maxrss / 1024,
        }


def speed(run: dict[str, Any]) -> float:
    """Images per second in the run's median epoch; the first epoch is slower and does not count."""
    return statistics.median(row["images_per_second"] for row in run["rows"][1:])


def seconds(call: Callable[..., object], *arguments: object) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))

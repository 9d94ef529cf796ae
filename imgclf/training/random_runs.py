"""Runs train.py in a process of its own, where speed is measured on random images."""

import csv
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

TRAIN = Path(__file__).parents[2] / "train.py"


def write_images(folder: Path, count: int) -> None:
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


def train(folder: Path, *options: str) -> dict[str, Any]:
    """Runs train.py in a process of its own. OSError holds the output of one that failed.

    Returns:
        "config" as resolved, the "metrics" of metrics.json, the "rows" of metrics.csv, the "seconds" that the process
        took, and its peak "memory" in MiB.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run, log, begin = Path(place) / "run", Path(place) / "log", time.perf_counter()
        command = [sys.executable, str(TRAIN), *options, f"hydra.run.dir={run}"]
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        if status:
            raise OSError(f"{' '.join(command)} failed: {log.read_text().strip()}")
        table = csv.DictReader((run / "metrics.csv").read_text().splitlines())
        return {
            "config": OmegaConf.to_container(OmegaConf.load(run / "config.yaml")),
            "metrics": json.loads((run / "metrics.json").read_text()),
            "rows": [{name: float(value) for name, value in row.items() if value} for row in table],
            "seconds": seconds,
            "memory": usage.ru_maxrss / 1024,
        }

"""What the tests share: tiny data files in every layout, and the scripts run as a user runs them."""

import bz2
import contextlib
import os
import runpy
import struct
import sys
from pathlib import Path
from typing import NamedTuple

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # expected values and refusals are those of a machine without a GPU
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads than cores would wait for each other

import numpy as np
import pytest
import torch
from PIL import Image

PROJECT = Path(__file__).parent.parent
# A run of a second.
SMALL = ("data=mnist", "data.batch_size=50", "model=mlp", "model.hidden=[16]")
REAL_DATA = os.environ.get("IMGCLF_DATA_DIR")

needs_real_data = pytest.mark.skipif(
    not (REAL_DATA and (Path(REAL_DATA) / "MNIST" / "raw").is_dir()),
    reason="needs the real MNIST: set IMGCLF_DATA_DIR to the folder that holds MNIST/raw",
)


class Result(NamedTuple):
    code: int
    out: str
    err: str

    def ok(self) -> "Result":
        """The same, of a run that succeeded."""
        assert self.code == 0, self.out + self.err
        return self

    @property
    def error(self) -> str:
        """The one line a bad input gets."""
        assert self.code == 1, self.out + self.err
        lines = [line for line in self.err.splitlines() if line.strip()]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        return lines[0]


@pytest.fixture
def script(monkeypatch, capfd, tmp_path):
    """Runs train.py or evaluate.py in this process (imports are paid once), away from the project's folder."""

    def run(name: str, *arguments: str) -> Result:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", [str(PROJECT / name), *map(str, arguments)])
        monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
        capfd.readouterr()
        try:
            runpy.run_path(str(PROJECT / name), run_name="__main__")
            code = 0
        except SystemExit as stop:
            if isinstance(stop.code, str):  # the interpreter would print it and exit with 1
                print(stop.code, file=sys.stderr)
            code = 1 if isinstance(stop.code, str) else int(stop.code or 0)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    monkeypatch.setattr(sys, "path", [str(PROJECT), *sys.path])
    return run


@pytest.fixture
def train(script, tiny_data):
    """train.py on tiny files, one quiet epoch unless told otherwise."""

    def run(*arguments: str) -> Result:
        quick = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=1"]
        given = {argument.partition("=")[0] for argument in arguments}
        quick = [option for option in quick if option.partition("=")[0] not in given]
        return script("train.py", f"data_dir={tiny_data}", *quick, *arguments)

    return run


@pytest.fixture
def power_cut(monkeypatch):
    """``with power_cut(2):`` ends a run where its epoch 2, counted from 0, would start."""

    @contextlib.contextmanager
    def cut(epoch: int):
        from imgclf.training.history import History

        start = History.on_train_epoch_start

        def stop(self, trainer, module):
            if trainer.current_epoch == epoch:
                raise OSError("power cut")
            start(self, trainer, module)

        with monkeypatch.context() as patch:
            patch.setattr(History, "on_train_epoch_start", stop)
            yield

    return cut


def write_idx(path: Path, array: np.ndarray) -> None:
    """An idx file of bytes (MNIST) or big-endian ints (QMNIST's labels)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"uint8": 8, "int32": 12}[str(array.dtype)]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    path.write_bytes(header + array.astype(array.dtype.newbyteorder(">")).tobytes())


def tiny_images(count: int, classes: int, side: int = 28, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images a network can learn: each class has a bright stripe of its own; noise elsewhere."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = random.integers(0, 60, (count, side, side), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[label * side // classes : (label * side // classes) + 2] = 250
    return images, labels.astype(np.uint8)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A data_dir with tiny files in the layout of every data set that torchvision reads."""
    root = tmp_path_factory.mktemp("data")
    for split, stem, count in (("train", "train", 200), ("test", "t10k", 60)):
        images, labels = tiny_images(count, 10, seed=count)
        for name in ("MNIST", "FashionMNIST", "KMNIST"):
            write_idx(root / name / "raw" / f"{stem}-images-idx3-ubyte", images)
            write_idx(root / name / "raw" / f"{stem}-labels-idx1-ubyte", labels)
        extended = np.zeros((count, 8), dtype=np.int32)
        extended[:, 0] = labels
        write_idx(root / "QMNIST" / "raw" / f"qmnist-{split}-images-idx3-ubyte", images)
        write_idx(root / "QMNIST" / "raw" / f"qmnist-{split}-labels-idx2-int", extended)
        for kind, classes, first in (("balanced", 47, 0), ("letters", 26, 1)):
            images, labels = tiny_images(count, classes)
            write_idx(root / "EMNIST" / "raw" / f"emnist-{kind}-{split}-images-idx3-ubyte", images.transpose(0, 2, 1))
            write_idx(root / "EMNIST" / "raw" / f"emnist-{kind}-{split}-labels-idx1-ubyte", labels + np.uint8(first))
        images, labels = tiny_images(count, 10, side=16)
        rows = [
            f"{label + 1} " + " ".join(f"{i + 1}:{value / 127.5 - 1:.4f}" for i, value in enumerate(image.ravel()))
            for image, label in zip(images, labels, strict=True)
        ]
        with bz2.open(root / ("usps.bz2" if split == "train" else "usps.t.bz2"), "wt") as file:
            file.write("\n".join(rows) + "\n")
        write_xrays(root / "chest_xray" / split, count=80 if split == "train" else 30)
    return root


def write_xrays(folder: Path, count: int) -> None:
    """Images of two classes, named like the chest X-rays: two a patient."""
    images, labels = tiny_images(count, 2, side=40, seed=count)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        patient = i // 4 + 1
        healthy = f"IM-{patient:04}-{i:04}" if i % 4 else f"NORMAL2-IM-{patient:04}-{i:04}"
        name = f"person{patient}_bacteria_{i}" if label else healthy
        file = folder / ("PNEUMONIA" if label else "NORMAL") / f"{name}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGCLF_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _undrawn(request, monkeypatch):
    """Figures are made but not drawn, which takes half of a tiny run, except for tests marked ``draws``."""
    if request.node.get_closest_marker("draws") is None:
        blank = np.zeros((100, 100, 3), dtype=np.uint8)
        monkeypatch.setattr("imgclf.figures.style._rasterize", lambda figure: blank)


def options(group: str) -> list[str]:
    """The names of a config group's files."""
    return sorted(path.stem for path in (PROJECT / "conf" / group).glob("*.yaml"))

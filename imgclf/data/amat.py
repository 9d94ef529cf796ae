"""The .amat files of the MNIST variations as Larochelle et al. (2007) published them."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imgclf.core.files import write_file
from imgclf.core.text import printable
from imgclf.core.validation import Positive, checked
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset

SIDE = 28  # pixels
COLUMNS = SIDE**2 + 1  # the pixels of an image and its label


class AmatImages(ImageDataModule):
    """Images in text files of 785 numbers a line: 784 pixels in [0, 1], then the label.

    A file is read once, into ``cache_dir``. The last ``val_images`` of the training file are for validation.

    Args:
        train, test: the files; one of them may be left out. They are seen from here or else from ``data_dir``.
        transpose: exchange rows and columns, for copies that store images column by column.
        val_images: 2,000 of 12,000 in the published protocol.
        options: arguments of ImageDataModule.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line has another number of values, or values out of range.

    Example:
        >>> data = AmatImages("mnist_rotation_train.amat", "mnist_rotation_test.amat")
        >>> images, labels = data.dataset("test")[:4]  # uint8 (4, 1, 28, 28), int64 (4,)
    """

    @checked
    def __init__(
        self,
        train: str | None = None,
        test: str | None = None,
        transpose: bool = False,
        val_images: Positive = 2000,
        data_dir: str | Path = ".",
        cache_dir: str | Path = "~/.cache/imgclf",
        **options: Any,
    ) -> None:
        if not train and not test:
            raise ValueError("train=None: name the files, as in train=FILE test=FILE")
        super().__init__(**options)
        if self.folds:
            raise ValueError(
                f"folds={self.folds}: the published files have their own validation images; leave folds out"
            )
        self.class_names = [str(digit) for digit in range(10)]
        self.files = {"train": train, "test": test}
        self.transpose, self.val_images = transpose, val_images
        self.data_dir, self.cache_dir = Path(data_dir).expanduser(), Path(cache_dir).expanduser()

    @property
    def splits(self) -> tuple[str, ...]:
        of_train = ("train", "val") if self.files["train"] else ()
        return (*of_train, "test") if self.files["test"] else of_train

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 1, SIDE, SIDE

    def preprocessing(self) -> dict[str, Any]:
        return {**super().preprocessing(), "polarity": "any"}

    def prepare_data(self) -> None:
        """Reads the files into the cache, so that a bad line is found before training."""
        for part, file in self.files.items():
            if file:
                self.load(part)
        if "test" not in self.splits:
            self.notes.append("there is no test part: train and val are evaluated")

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        file = self.files[split]
        if file is None:
            raise FileNotFoundError(f"{split}=None: name the file of the {split} part, as in {split}=FILE")
        places = [Path(file).expanduser(), self.data_dir / file]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"{split}={printable(file)}: no such file")
        rows = np.load(self._cached(path))
        images = torch.from_numpy(rows[:, :-1]).view(-1, 1, SIDE, SIDE)
        return images.mT.contiguous() if self.transpose else images, torch.from_numpy(rows[:, -1]).long()

    def make_splits(self) -> dict[str, Callable[[], ImageDataset]]:
        def of_train(val: bool) -> ImageDataset:
            images, labels = self.load_checked("train")
            kept = len(labels) - self.val_images
            if kept < 1:
                raise ValueError(f"val_images={self.val_images}: the training file has {len(labels)} images")
            rows = torch.arange(len(labels))
            return ImageDataset(images, labels, rows[kept:] if val else rows[:kept])

        return {**super().make_splits(), "train": lambda: of_train(False), "val": lambda: of_train(True)}

    def _cached(self, path: Path) -> Path:
        """The file's rows as .npy: uint8 (N, 785)."""
        state = path.stat()
        key = hashlib.sha256(os.fsencode(f"{path.resolve()} {state.st_size} {state.st_mtime_ns}")).hexdigest()[:20]
        cache = self.cache_dir / f"amat-{key}.npy"
        if not cache.is_file():
            content = io.BytesIO()
            np.save(content, _read(path))
            self.cache_dir.mkdir(parents=True, exist_ok=True)
            write_file(cache, content.getvalue())
        return cache


def _read(path: Path) -> np.ndarray:
    """Pixels from 0 to 255 and labels, uint8 (N, 785)."""
    try:
        rows = np.loadtxt(path, np.float32, ndmin=2)
    except ValueError:
        rows = np.empty((0, 0), np.float32)
    if not len(rows) or rows.shape[1] != COLUMNS or not _are_images(rows):
        raise ValueError(f"{printable(path)}: {_first_fault(path)}")
    return np.concatenate([(rows[:, :-1] * 255).round(), rows[:, -1:]], 1).astype(np.uint8)


def _are_images(rows: np.ndarray) -> bool:
    pixels, labels = rows[:, :-1], rows[:, -1]
    return bool((pixels >= 0).all() and (pixels <= 1).all() and np.isin(labels, np.arange(10)).all())


def _first_fault(path: Path) -> str:
    with path.open(errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()  # what follows # is a comment
            if words and len(words) != COLUMNS:
                return f"line {number} has {len(words)} numbers, not {COLUMNS} (784 pixels and the label, with spaces)"
            try:
                row = np.array(words, np.float32)
            except ValueError as error:
                return f"line {number}: {error}"
            if words and not _are_images(row[None]):
                return f"line {number}: pixels have to lie in [0, 1], and the label in 0..9"
    return "it holds no images"

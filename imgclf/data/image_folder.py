"""Folders of images, one folder a class."""

import functools
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from imgclf.core.files import find_folder
from imgclf.core.names import SPLITS
from imgclf.core.text import printable, some_names
from imgclf.core.validation import Positive, checked
from imgclf.data import folder_scan
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset
from imgclf.data.folder_scan import UNDIVIDED, ImageFile, class_names_of, compiled
from imgclf.data.label_table import find_table, scan_table
from imgclf.data.memmap_cache import Form, MemmapImageDataset, decode_files
from imgclf.data.splits import split_holdout
from imgclf.imaging.image_files import Fit

UNDIVIDED_TEST_FRACTION = 0.2
TEST_SEED = 0  # draws the test images of an undivided folder, which are the same in every run


class ImageFolder(ImageDataModule):
    """Image files in ``{train[,val],test}/CLASS/``, or in ``CLASS/`` alone, or files that a table or a pattern labels.

    The parts may be called in other usual ways, such as Training or valid. A folder without parts is divided by
    fractions. The classes come in natural order. The images are decoded once, to one size, into ``cache_dir`` (see
    ``imgclf.data.memmap_cache``). What is passed over is told in ``notes``.

    Args:
        root: the folder, as seen from here or else from ``data_dir``; by default the folder of ``labels``.
        labels: a table that names the class of each file (see ``imgclf.data.label_table``), as seen from here or from
            ``root``.
        columns: the table's own names of the columns file, label, split and group, where they are unusual.
        label_pattern: a regular expression that finds the class in a file's path, as ``group_pattern`` finds the group.
        image_size: pixels a side, or height and width; 224 by default.
        fit: what becomes of an image of another aspect ratio: it is stretched, padded with black or cropped.
        bits: how many bits are in use in images of 16 bits; by default found in the training part.
        channels: 1 (grey) or 3 (RGB).
        positive: the class to be detected, where there are two; the last one by default.
        group_pattern: a regular expression that finds, in a file's path below its class folder, what the images of one
            patient (or scene, or writer) have in common. These images then stay on one side of a split. The
            expression's first group counts, or all of the match; a file without a match stands alone.
        val_folder: take ``val/`` for validation; otherwise, and with ``folds``, its images join those of ``train/``,
            from which validation images are held out.
        test_fraction: the share that is held out for testing where there is no test part; always the same images. By
            default 0.2 of an undivided folder, and nothing of a training part. 1: all of an undivided folder.
        skip_bad: leave unreadable files out instead of stopping.
        options: arguments of ImageDataModule.

    Raises:
        FileNotFoundError, ValueError: folders, tables or files are missing or do not fit, or cannot be read.

    Example:
        >>> data = ImageFolder("chest_xray", image_size=64, channels=1, group_pattern=r"person\\d+", data_dir="data")
        >>> images, labels = data.dataset("train")[:4]
    """

    @checked
    def __init__(
        self,
        root: str | None = None,
        image_size: Positive | Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None,
        channels: Literal[1, 3] = 3,
        positive: str | None = None,
        group_pattern: str | None = None,
        val_folder: bool = True,
        test_fraction: Annotated[float, Field(gt=0, le=1)] | None = None,
        skip_bad: bool = False,
        data_dir: str | Path = ".",
        cache_dir: str | Path = "~/.cache/imgclf",
        labels: str | None = None,
        columns: dict[str, str] | None = None,
        label_pattern: str | None = None,
        fit: Fit = "stretch",
        bits: Annotated[int, Field(ge=8, le=16)] | None = None,
        **options: Any,
    ) -> None:
        if not root and not labels:
            raise ValueError(f"root={root}: name the folder of images, as in root=DIR")
        if labels and label_pattern:
            raise ValueError(f"label_pattern={label_pattern}: the classes come from labels={labels}: leave one out")
        super().__init__(**options)
        self.group_pattern = compiled("group_pattern", group_pattern)
        self.label_pattern = compiled("label_pattern", label_pattern)
        self.root, self.data_dir, self.cache_dir = root, data_dir, Path(cache_dir).expanduser()
        self.labels, self.columns, self.fit, self.bits = labels, columns, fit, bits
        self.channels, self.image_size, self.positive = channels, image_size or 224, positive
        self.val_folder, self.test_fraction, self.skip_bad = val_folder, test_fraction, skip_bad
        self.faults: dict[str, str] = {}  # the fault of each file that could not be read so far, by file name
        self._decoded: dict[str, MemmapImageDataset] = {}  # the images of each part that could be read
        self._groups: dict[str, list[str | None]] = {}  # the group of each file of a part
        self._held_out: dict[str, tuple[Tensor, Tensor]] = {}  # the rows of a part that are kept, and its test images

    @functools.cached_property
    def folder(self) -> Path:
        """The folder that ``root`` names, or that the table lies in."""
        return find_folder(self.root, self.data_dir) if self.root else self.table.parent

    @functools.cached_property
    def table(self) -> Path:
        """The file that ``labels`` names."""
        folders = [Path(), self.folder] if self.root else [Path()]
        return find_table(str(self.labels), [*folders, Path(self.data_dir).expanduser()])

    @functools.cached_property
    def parts(self) -> dict[str, list[ImageFile]]:
        """The files of "train", "val" and "test", as far as there are such parts; or all files as ``UNDIVIDED``."""
        if self.labels is None:
            scan = folder_scan.scan_folder(self.folder, self.label_pattern)
        else:
            scan = scan_table(self.table, self.folder, self.columns, self.skip_bad)
        if (self.folds or not self.val_folder) and "train" in scan.parts:
            scan.parts["train"] += scan.parts.pop("val", [])
        self.notes += scan.notes
        return scan.parts

    @property
    def splits(self) -> tuple[str, ...]:
        if UNDIVIDED in self.parts:
            return ("test",) if self.test_fraction == 1 else SPLITS
        has = {"train": "train" in self.parts, "val": bool(self.parts.keys() & {"train", "val"})}
        has["test"] = "test" in self.parts or (self.test_fraction is not None and "train" in self.parts)
        return tuple(split for split in SPLITS if has[split])

    @functools.cached_property
    def class_names(self) -> list[str]:  # pyrefly: ignore[bad-override]
        names = class_names_of(file for files in self.parts.values() for file in files)
        if self.positive is not None and (self.positive not in names or len(names) != 2):
            raise ValueError(f"positive={self.positive}: name one of two classes; these are {some_names(names)}")
        return sorted(names, key=lambda name: name == self.positive)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width = self.image_size if isinstance(self.image_size, list) else [self.image_size] * 2
        return self.channels, height, width

    def preprocessing(self) -> dict[str, Any]:
        return {**super().preprocessing(), "reader": "image_file", "fit": self.fit, "bits": self.bits or 16}

    def prepare_data(self) -> None:
        """Decodes all files, those of the test part too, so that a bad file is found before training."""
        self._decode(self.parts)
        if "test" not in self.splits:
            self.notes.append("there is no test part: train and val are evaluated (test_fraction=0.2 holds one out)")

    def make_splits(self) -> dict[str, Callable[[], ImageDataset]]:
        return {split: functools.partial(self._make_split, split) for split in SPLITS}

    def fingerprints(self) -> dict[str, str]:
        if "test" not in self._fingerprints and "test" in self.splits:
            # The cache keeps the hashes of its images, so this reads no test image.
            self._fingerprints["test"] = self._make_split("test").fingerprint(self.class_names)
        return {**self._fingerprints, **super().fingerprints()}

    def image_names(self, split: str) -> list[str]:
        files = self.parts[self._part_of(split)]
        return [str(files[row].path) for row in self.dataset(split).rows.tolist()]

    def groups(self, split: str) -> list[str | None]:
        groups = self._groups_of(self._part_of(split))
        return [groups[row] for row in self.dataset(split).rows.tolist()]

    def _part_of(self, split: str) -> str:
        """The part that the images of a split are taken from."""
        if UNDIVIDED in self.parts:
            return UNDIVIDED
        return split if split in self.parts else "train"

    def _make_split(self, split: str) -> ImageDataset:
        if split not in self.splits:
            raise FileNotFoundError(
                f"root={self.root or self.labels}: it has {' and '.join(self.splits)}, but no {split} part: choose "
                f"split={self.splits[-1]}"
            )
        part = self._part_of(split)
        self._decode([part])
        images = self._decoded[part]
        rows, test_rows = images.rows, images.rows
        if part not in ("test", "val") and "test" not in self.parts and "test" in self.splits:
            rows, test_rows = self._without_test(part)
        if split == "test":
            rows = test_rows.sort().values
        elif part == "train" and "val" in self.parts:  # in random order, as the training rows are after a split
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        elif part != "val":
            rows = self._hold_out(part, rows, self.hold_out_val)[split == "val"]
        return MemmapImageDataset(images.path, images.labels, rows)

    def _without_test(self, part: str) -> tuple[Tensor, Tensor]:
        """The rows of a part that remain when the test images are held out, and those of the test images."""
        rows, fraction = self._decoded[part].rows, self.test_fraction or UNDIVIDED_TEST_FRACTION
        if part not in self._held_out and fraction < 1:
            split = functools.partial(split_holdout, fraction=fraction, seed=TEST_SEED, name="test_fraction")
            self._held_out[part] = self._hold_out(part, rows, split)
        return self._held_out.get(part, (rows[:0], rows))

    def _hold_out(self, part: str, rows: Tensor, split: Callable[..., Any]) -> tuple[Tensor, Tensor]:
        images = self._decoded[part]
        groups = None
        if self.group_pattern is not None or any(self._groups_of(part)):
            files, names = self.parts[part], self._groups_of(part)
            # The two prefixes keep a patient's name apart from the path of a file that stands alone.
            groups = [
                f"alone {files[row].path_in_class.as_posix()}" if names[row] is None else f"group {names[row]}"
                for row in rows.tolist()
            ]
        digests = MemmapImageDataset(images.path, images.labels, rows).digests()
        kept, held_out = split(images.labels[rows], groups=groups, digests=digests)
        return rows[kept], rows[held_out]

    def _groups_of(self, part: str) -> list[str | None]:
        if part not in self._groups:
            self._groups[part] = folder_scan.groups_of(self.parts[part], self.group_pattern, self.notes)
        return self._groups[part]

    def _decode(self, parts: Iterable[str]) -> None:
        class_index = {name: index for index, name in enumerate(self.class_names)}
        if self.bits is None:  # the first part's files tell how many bits are in use
            parts = dict.fromkeys([next(iter(self.parts)), *parts])
        for part in (part for part in parts if part not in self._decoded):
            files = self.parts[part]
            labels = torch.tensor([class_index[file.class_name] for file in files])
            paths = [file.path for file in files]
            names = [os.path.relpath(path, self.folder) for path in paths]
            form, is_told = Form(self.image_shape, self.fit, self.bits), self.bits is not None
            owner = f"{self.folder.resolve()} {part}"
            cache, faults, self.bits = decode_files(paths, names, form, self.cache_dir, owner)
            if self.bits < 16 and not is_told:
                self.notes.append(f"images of 16 bits use {self.bits} of them: {2**self.bits - 1} is read as white")
            rows = torch.tensor([row for row, name in enumerate(names) if name not in faults], dtype=torch.int64)
            self._decoded[part] = MemmapImageDataset(cache, labels, rows)
            self.faults |= faults
            if faults and self.skip_bad:
                where = "" if part == UNDIVIDED else f"{part} "
                self.notes.append(f"left out {len(faults)} of {len(names)} {where}images that cannot be read")
        if self.faults and not self.skip_bad:
            num_files = sum(len(self.parts[part]) for part in self._decoded)
            faults = "; ".join(f"{printable(name)} ({fault})" for name, fault in self.faults.items())
            raise ValueError(
                f"{len(self.faults)} of {num_files} images cannot be read: {faults}: repair or remove them, or leave "
                "them out with skip_bad=true"
            )

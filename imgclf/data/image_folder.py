"""Folders of images, one a class."""

import functools
import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgclf.core.text import printable
from imgclf.data.datamodule import SPLITS, ImageDataModule
from imgclf.data.datasets import ImageDataset
from imgclf.data.memmap_cache import MemmapImageDataset, decode
from imgclf.data.splits import hold_out
from imgclf.imaging.image_files import SUFFIXES, find_folder

log = logging.getLogger(__name__)

GROUP = "group "  # how the names of patients begin, not those of files that stand alone
WHOLE = "whole"  # the one part of a folder that is not divided into train and test


class ImageFolder(ImageDataModule):
    """Image files in ``{train[,val],test}/CLASS/``, or in ``CLASS/`` alone, which is then divided by fractions.

    Class names are the folders' names, sorted. Images are decoded once (see ``imgclf.data.memmap_cache``), to one size.
    Files whose ending is not an image's are left alone; folders inside a class folder belong to the class.

    Args:
        root: the folder, as seen from here or else from ``data_dir``.
        image_size: height and width, in pixels.
        channels: 1 (grey) or 3 (RGB).
        positive: of two classes the one to be detected; the last one by default.
        group_pattern: regular expression that finds, in a file's path below its class folder, what images of one
            patient (or scene, or writer) have in common; they then fall on one side of a split. Its first group
            counts, or all of the match; a file without a match stands alone.
        val_folder: take ``val/`` for validation where it exists; otherwise its images join those of ``train/``, from
            which ``val_fraction`` is held out.
        test_fraction: of an undivided folder, held out for testing; always the same images.
        skip_bad: leave unreadable files out instead of stopping.
        data_dir: where ``root`` may lie.
        cache_dir: where decoded images are kept.
        options: of ImageDataModule.

    Raises:
        FileNotFoundError: no such folder, or no images in a class folder.
        ValueError: an argument out of range, fewer than two classes, parts whose classes differ, unreadable files
            (all are named), or a pattern that matches no file.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 224,
        channels: int = 3,
        positive: str | None = None,
        group_pattern: str | None = None,
        val_folder: bool = True,
        test_fraction: float = 0.2,
        skip_bad: bool = False,
        data_dir: str = ".",
        cache_dir: str = "~/.cache/imgclf",
        **options,
    ) -> None:
        if not isinstance(root, str) or not root:
            raise ValueError(f"data.root={root}: name the folder of images, as in data.root=DIR")
        if not isinstance(image_size, int) or image_size < 1:
            raise ValueError(f"data.image_size={image_size}: give a whole number from 1 up")
        if channels not in (1, 3):
            raise ValueError(f"data.channels={channels}: give 1 (grey) or 3 (RGB)")
        if not isinstance(test_fraction, int | float) or not 0 < test_fraction < 1:
            raise ValueError(f"data.test_fraction={test_fraction}: give a share between 0 and 1, such as 0.2")
        for name, value in (("val_folder", val_folder), ("skip_bad", skip_bad)):
            if not isinstance(value, bool):
                raise ValueError(f"data.{name}={value}: give true or false")
        try:
            self.group_pattern = re.compile(group_pattern) if group_pattern else None
        except re.error as error:
            raise ValueError(f"data.group_pattern={group_pattern}: no regular expression ({error})") from error
        super().__init__(**options)
        self.root, self.data_dir, self.cache_dir = root, data_dir, Path(cache_dir).expanduser()
        self.shape = (channels, image_size, image_size)
        self.positive, self.skip_bad = positive, skip_bad
        self.val_folder, self.test_fraction = val_folder, test_fraction
        self.faults: dict[str, str] = {}  # of the files that could not be read, so far
        self._decoded: dict[str, tuple[Path, Tensor]] = {}

    @functools.cached_property
    def folder(self) -> Path:
        """Where ``root`` is."""
        return find_folder(self.root, self.data_dir)

    @functools.cached_property
    def parts(self) -> dict[str, list[tuple[Path, Path, str]]]:
        """Of "train", "val" and "test", or of ``WHOLE``: every image's file, path below its class folder, and class."""
        root = self.folder
        named = {split: root / split for split in SPLITS if (root / split).is_dir()}
        if "train" not in named and "test" not in named:
            named = {WHOLE: root}
        parts = {name: _images(folder) for name, folder in named.items()}
        if not self.val_folder and "train" in parts:
            parts["train"] += parts.pop("val", [])
        classes = {name: {label for *_, label in images} for name, images in parts.items()}
        first = next(iter(parts))
        for name, found in classes.items():
            if found != classes[first]:
                raise ValueError(
                    f"data.root={printable(root)}: {name}/ has the classes {_listed(found)}, {first}/ has "
                    f"{_listed(classes[first])}: they must be the same"
                )
        if len(classes[first]) < 2:
            raise ValueError(
                f"data.root={printable(root)}: needs two class folders or more, found {_listed(classes[first])}; "
                "images belong in {train,test}/CLASS/ or in CLASS/"
            )
        if self.positive is not None and (self.positive not in classes[first] or len(classes[first]) != 2):
            raise ValueError(
                f"data.positive={self.positive}: name one of two classes; these are {_listed(classes[first])}"
            )
        return parts

    @functools.cached_property
    def class_names(self) -> list[str]:  # pyrefly: ignore[bad-override]
        names = sorted({label for *_, label in next(iter(self.parts.values()))})
        return names if self.positive is None else sorted(names, key=self.positive.__eq__)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.shape

    def preprocessing(self) -> dict[str, Any]:
        return {**super().preprocessing(), "reader": "image_file"}

    def prepare_data(self) -> None:
        for part in self.parts:  # all of them, so that a bad file among the test images is no surprise in the end
            self._decode(part)
        self._refuse_bad()

    def make_splits(self) -> dict[str, Callable[[], ImageDataset]]:
        return {split: functools.partial(self._images, split) for split in SPLITS}

    def fingerprints(self) -> dict[str, str]:
        if "test" not in self._fingerprints and {WHOLE, "test"} & self.parts.keys():
            self._fingerprints["test"] = self._hashed(self._images("test"))  # by the cache's notes, not its images
        return {**self._fingerprints, **super().fingerprints()}

    def image_names(self, split: str) -> list[str]:
        part, rows = self._members(split)
        return [str(self.parts[part][row][0]) for row in rows.tolist()]

    def groups(self, split: str) -> list[str | None]:
        part, rows = self._members(split)
        names = self._groups(part) or ["alone"] * len(self.parts[part])
        return [names[row].removeprefix(GROUP) if names[row].startswith(GROUP) else None for row in rows.tolist()]

    def _images(self, split: str) -> ImageDataset:
        part, rows = self._members(split)
        return MemmapImageDataset(self._rows(part)[0], self._labels(part), rows)

    @functools.cache  # noqa: B019 - one data module lasts as long as its run
    def _members(self, split: str) -> tuple[str, Tensor]:
        """The part a split is taken from, and which of its rows."""
        if WHOLE in self.parts:
            part = WHOLE
            rows, test = self._hold_out(part, self._rows(part)[1], self.test_fraction, 0, "data.test_fraction")
            if split == "test":
                return part, test.sort().values
        else:
            part = "train" if split == "val" and "val" not in self.parts else split
            if part not in self.parts:
                raise FileNotFoundError(f"data.root={self.root}: there is no {part}/ in it")
            rows = self._rows(part)[1]
            if split != "train" and part == split:
                return part, rows
            if "val" in self.parts:  # in random order, as where validation images were held out
                return part, rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        train, val = self._hold_out(part, rows, self.val_fraction, self.split_seed, "data.val_fraction")
        return part, train if split == "train" else val

    def _hold_out(self, part: str, rows: Tensor, fraction: float, seed: int, option: str) -> tuple[Tensor, Tensor]:
        groups = self._groups(part)
        groups = groups and [groups[i] for i in rows.tolist()]
        kept, held = hold_out(self._labels(part)[rows], fraction, seed, option, groups)
        return rows[kept], rows[held]

    def _labels(self, part: str) -> Tensor:
        numbers = {name: number for number, name in enumerate(self.class_names)}
        return torch.tensor([numbers[label] for *_, label in self.parts[part]])

    @functools.cache  # noqa: B019
    def _groups(self, part: str) -> list[str] | None:
        """Whose images they are, a name for each; None without a pattern."""
        if self.group_pattern is None:
            return None
        paths = [path.as_posix() for _, path, _ in self.parts[part]]
        found = [self.group_pattern.search(path) for path in paths]
        if not any(found):
            raise ValueError(
                f"data.group_pattern={self.group_pattern.pattern} matches no file, such as {printable(paths[0])}"
            )
        if alone := found.count(None):
            log.warning("data.group_pattern: %d of %d files do not match and stand alone", alone, len(found))
        return [
            f"alone {path}" if match is None else f"{GROUP}{match[1] if match.re.groups else match[0]}"
            for match, path in zip(found, paths, strict=True)
        ]

    def _rows(self, part: str) -> tuple[Path, Tensor]:
        """The decoded images of a part, and the rows of those that could be read."""
        self._decode(part)
        self._refuse_bad()
        return self._decoded[part]

    def _decode(self, part: str) -> None:
        if part not in self._decoded:
            files = [file for file, *_ in self.parts[part]]
            names = [str(file.relative_to(self.folder)) for file in files]
            cache, faults = decode(files, names, self.shape, self.cache_dir, f"{self.folder.resolve()} {part}")
            self.faults |= faults
            if faults and self.skip_bad:
                log.warning("left out %d of %d %s images that cannot be read", len(faults), len(files), part)
            good = [row for row, name in enumerate(names) if name not in faults]
            self._decoded[part] = cache, torch.tensor(good)

    def _refuse_bad(self) -> None:
        if self.faults and not self.skip_bad:
            files = sum(len(self.parts[part]) for part in self._decoded)
            raise ValueError(
                f"{len(self.faults)} of {files} images cannot be read: "
                f"{'; '.join(f'{printable(name)} ({fault})' for name, fault in self.faults.items())}: "
                "repair or remove them, or leave them out with data.skip_bad=true"
            )


def _images(part: Path) -> list[tuple[Path, Path, str]]:
    """Every image file in the class folders of ``part``, with its path below the class folder, and the class."""
    images = []
    for folder in sorted(path for path in part.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if part.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{printable(folder)}: a link to a folder that it lies in")
        paths = [
            Path(where, name).relative_to(folder)
            for where, _, names in os.walk(folder)  # links to folders are not followed: they may lead in circles
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
        if not paths:
            raise FileNotFoundError(f"{printable(folder)}: a class folder without images ({', '.join(SUFFIXES)})")
        images += [(folder / path, path, folder.name) for path in sorted(paths)]
    return images


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(printable, sorted(names))) or "none"

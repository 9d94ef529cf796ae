"""Folders of images, one folder a class."""

import functools
import logging
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from imgclf.core.names import SPLITS
from imgclf.core.text import printable
from imgclf.core.validation import Fraction, Positive, checked
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset
from imgclf.data.folder_scan import UNDIVIDED, ImageFile, class_names_of, listed, scan_folder
from imgclf.data.memmap_cache import MemmapImageDataset, decode_files
from imgclf.data.splits import split_holdout
from imgclf.imaging.image_files import find_folder

log = logging.getLogger(__name__)

TEST_SEED = 0  # of the test images of an undivided folder, which are the same in every run


class ImageFolder(ImageDataModule):
    """Image files in ``{train[,val],test}/CLASS/``, or in ``CLASS/`` alone, which is then divided by fractions.

    The class names are the folders' names, sorted. The images are decoded once, to one size (see
    ``imgclf.data.memmap_cache``). Files whose ending is not an image's are left alone. Folders inside a class folder
    belong to the class.

    Args:
        root: the folder, as seen from here or else from ``data_dir``.
        image_size: height and width, in pixels.
        channels: 1 (grey) or 3 (RGB).
        positive: the class to be detected, where there are two; the last one by default.
        group_pattern: a regular expression that finds, in a file's path below its class folder, what the images of one
            patient (or scene, or writer) have in common. These images then stay on one side of a split. The
            expression's first group counts, or all of the match; a file without a match stands alone.
        val_folder: take ``val/`` for validation where it exists; otherwise its images join those of ``train/``, from
            which ``val_fraction`` is held out.
        test_fraction: the share of an undivided folder that is held out for testing; always the same images.
        skip_bad: leave unreadable files out instead of stopping.
        cache_dir: the folder for decoded images.
        options: arguments of ImageDataModule.

    Raises:
        FileNotFoundError: there is no such folder, or a class folder holds no images.
        ValueError: the folders or an argument do not fit, or files cannot be read (all are named).

    Example:
        >>> data = ImageFolder("chest_xray", image_size=64, channels=1, group_pattern=r"person\\d+", data_dir="data")
        >>> images, labels = data.dataset("train")[:4]
    """

    @checked
    def __init__(
        self,
        root: str | None,
        image_size: Positive = 224,
        channels: Literal[1, 3] = 3,
        positive: str | None = None,
        group_pattern: str | None = None,
        val_folder: bool = True,
        test_fraction: Fraction = 0.2,
        skip_bad: bool = False,
        data_dir: str | Path = ".",
        cache_dir: str | Path = "~/.cache/imgclf",
        **options: Any,
    ) -> None:
        if not root:
            raise ValueError(f"root={root}: name the folder of images, as in root=DIR")
        try:
            self.group_pattern = re.compile(group_pattern) if group_pattern else None
        except re.error as error:
            raise ValueError(f"group_pattern={group_pattern}: it is no regular expression ({error})") from error
        super().__init__(**options)
        self.root, self.data_dir, self.cache_dir = root, data_dir, Path(cache_dir).expanduser()
        self.channels, self.image_size, self.positive = channels, image_size, positive
        self.val_folder, self.test_fraction, self.skip_bad = val_folder, test_fraction, skip_bad
        self.faults: dict[str, str] = {}  # file name to fault, of the files that could not be read so far
        self._decoded: dict[str, MemmapImageDataset] = {}  # part to all of its images that could be read
        self._groups: dict[str, list[str | None]] = {}  # part to the group of each of its files

    @functools.cached_property
    def folder(self) -> Path:
        """The folder that ``root`` names."""
        return find_folder(self.root, self.data_dir)

    @functools.cached_property
    def parts(self) -> dict[str, list[ImageFile]]:
        """The files of "train", "val" and "test", as far as there are such folders; or all files as ``UNDIVIDED``."""
        return scan_folder(self.folder, self.val_folder)

    @functools.cached_property
    def class_names(self) -> list[str]:  # pyrefly: ignore[bad-override]
        names = class_names_of(next(iter(self.parts.values())))
        if self.positive is None:
            return names
        if self.positive not in names or len(names) != 2:
            raise ValueError(f"positive={self.positive}: name one of two classes; these are {listed(names)}")
        return sorted(names, key=self.positive.__eq__)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.channels, self.image_size, self.image_size

    def preprocessing(self) -> dict[str, Any]:
        return {**super().preprocessing(), "reader": "image_file"}

    def prepare_data(self) -> None:
        """Decodes all files, those of the test part too, so that a bad file is found before training."""
        self._decode(self.parts)

    def make_splits(self) -> dict[str, Callable[[], ImageDataset]]:
        return {split: functools.partial(self._make_split, split) for split in SPLITS}

    def fingerprints(self) -> dict[str, str]:
        if "test" not in self._fingerprints and self._part_of("test") in self.parts:
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
        return "train" if split == "val" and "val" not in self.parts else split

    def _make_split(self, split: str) -> ImageDataset:
        part = self._part_of(split)
        if part not in self.parts:
            raise FileNotFoundError(f"root={self.root}: there is no {part}/ in it")
        self._decode([part])
        images = self._decoded[part]
        rows, test_rows = images.rows, images.rows
        if part == UNDIVIDED:
            rows, test_rows = self._hold_out(part, rows, self.test_fraction, TEST_SEED, "test_fraction")
        if split == "test":
            rows = test_rows.sort().values
        elif part == "train" and "val" in self.parts:  # in random order, as the training rows are after a split
            rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        elif part != "val":
            train_rows, val_rows = self._hold_out(part, rows, self.val_fraction, self.split_seed, "val_fraction")
            rows = train_rows if split == "train" else val_rows
        return MemmapImageDataset(images.path, images.labels, rows)

    def _hold_out(self, part: str, rows: Tensor, fraction: float, seed: int, name: str) -> tuple[Tensor, Tensor]:
        groups = None
        if self.group_pattern is not None:
            files, names = self.parts[part], self._groups_of(part)
            # The two prefixes keep a patient's name apart from the path of a file that stands alone.
            groups = [
                f"alone {files[row].path_in_class.as_posix()}" if names[row] is None else f"group {names[row]}"
                for row in rows.tolist()
            ]
        kept, held_out = split_holdout(self._decoded[part].labels[rows], fraction, seed, groups, name=name)
        return rows[kept], rows[held_out]

    def _groups_of(self, part: str) -> list[str | None]:
        """The group of each file of a part; None where there is no pattern, or it finds nothing."""
        pattern, paths = self.group_pattern, [file.path_in_class.as_posix() for file in self.parts[part]]
        if pattern is None:
            return [None] * len(paths)
        if part not in self._groups:
            matches = [pattern.search(path) for path in paths]
            if not any(matches):
                raise ValueError(f"group_pattern={pattern.pattern}: it matches no file, such as {printable(paths[0])}")
            if num_alone := matches.count(None):
                log.warning("group_pattern: %d of %d files do not match; each stands alone", num_alone, len(paths))
            group = 1 if pattern.groups else 0
            self._groups[part] = [None if match is None else str(match[group]) for match in matches]
        return self._groups[part]

    def _decode(self, parts: Iterable[str]) -> None:
        class_index = {name: index for index, name in enumerate(self.class_names)}
        for part in parts:
            if part in self._decoded:
                continue
            files = self.parts[part]
            labels = torch.tensor([class_index[file.class_name] for file in files])
            paths = [file.path for file in files]
            names = [str(path.relative_to(self.folder)) for path in paths]
            owner = f"{self.folder.resolve()} {part}"
            cache, faults = decode_files(paths, names, self.image_shape, self.cache_dir, owner)
            rows = torch.tensor([row for row, name in enumerate(names) if name not in faults], dtype=torch.int64)
            self._decoded[part] = MemmapImageDataset(cache, labels, rows)
            self.faults |= faults
            if faults and self.skip_bad:
                log.warning("left out %d of %d %s images that cannot be read", len(faults), len(names), part)
        if self.faults and not self.skip_bad:
            num_files = sum(len(self.parts[part]) for part in self._decoded)
            faults = "; ".join(f"{printable(name)} ({fault})" for name, fault in self.faults.items())
            raise ValueError(
                f"{len(self.faults)} of {num_files} images cannot be read: {faults}: repair or remove them, or leave "
                "them out with skip_bad=true"
            )

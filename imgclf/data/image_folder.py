"""Folders of images, one folder a class."""

import functools
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from imgclf.core.names import SPLITS
from imgclf.core.text import printable
from imgclf.core.validation import Fraction, Positive, checked
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset
from imgclf.data.folder_scan import UNDIVIDED, ImageFile, class_names_of, find_groups, listed, scan_folder
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
        data_dir: a folder that ``root`` may lie in.
        cache_dir: the folder for decoded images.
        options: arguments of ImageDataModule.

    Raises:
        FileNotFoundError: there is no such folder, or a class folder holds no images.
        ValueError: an argument is out of range, there are fewer than two classes, the classes of the parts differ,
            files cannot be read (all are named), or the pattern matches no file.

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
        self._caches: dict[str, Path] = {}  # part to its decoded images
        self._readable_rows: dict[str, Tensor] = {}  # part to the rows of the files that could be read
        self._groups: dict[str, list[str | None]] = {}
        self._rows: dict[str, Tensor] = {}  # split to its rows in its part

    @functools.cached_property
    def folder(self) -> Path:
        """The folder that ``root`` names."""
        return find_folder(self.root, self.data_dir)

    @functools.cached_property
    def parts(self) -> dict[str, list[ImageFile]]:
        """The files of "train", "val" and "test", as far as there are such folders; or all files as ``UNDIVIDED``."""
        parts = scan_folder(self.folder, self.val_folder)
        names = class_names_of(next(iter(parts.values())))
        if self.positive is not None and (self.positive not in names or len(names) != 2):
            raise ValueError(f"positive={self.positive}: name one of two classes; these are {listed(names)}")
        return parts

    @functools.cached_property
    def class_names(self) -> list[str]:  # pyrefly: ignore[bad-override]
        names = class_names_of(next(iter(self.parts.values())))
        return names if self.positive is None else sorted(names, key=self.positive.__eq__)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.channels, self.image_size, self.image_size

    def preprocessing(self) -> dict[str, Any]:
        return {**super().preprocessing(), "reader": "image_file"}

    def prepare_data(self) -> None:
        """Decodes all files, those of the test part too, so that a bad file is found before training."""
        for part in self.parts:
            self._decode(part)
        self._refuse_unreadable_files()

    def make_splits(self) -> dict[str, Callable[[], ImageDataset]]:
        return {split: functools.partial(self._make_split, split) for split in SPLITS}

    def fingerprints(self) -> dict[str, str]:
        if "test" not in self._fingerprints and self._part_of("test") in self.parts:
            # The cache keeps the hashes of its images, so this reads no test image.
            self._fingerprints["test"] = self._make_split("test").fingerprint(self.class_names)
        return {**self._fingerprints, **super().fingerprints()}

    def image_names(self, split: str) -> list[str]:
        files = self.parts[self._part_of(split)]
        return [str(files[row].path) for row in self._rows_of(split).tolist()]

    def groups(self, split: str) -> list[str | None]:
        groups = self._groups_of(self._part_of(split))
        return [groups[row] for row in self._rows_of(split).tolist()]

    def _make_split(self, split: str) -> ImageDataset:
        part, rows = self._part_of(split), self._rows_of(split)
        return MemmapImageDataset(self._caches[part], self._labels(part), rows)

    def _part_of(self, split: str) -> str:
        """The part that the images of a split are taken from."""
        if UNDIVIDED in self.parts:
            return UNDIVIDED
        return "train" if split == "val" and "val" not in self.parts else split

    def _rows_of(self, split: str) -> Tensor:
        if split not in self._rows:
            self._rows[split] = self._select_rows(split)
        return self._rows[split]

    def _select_rows(self, split: str) -> Tensor:
        """The rows of a split in its part: here the splits are drawn."""
        part = self._part_of(split)
        if part not in self.parts:
            raise FileNotFoundError(f"root={self.root}: there is no {part}/ in it")
        rows = self._decode_readable(part)
        if part == UNDIVIDED:
            rows, test_rows = self._split_holdout(part, rows, self.test_fraction, TEST_SEED, "test_fraction")
            if split == "test":
                return test_rows.sort().values
        elif part in ("val", "test"):
            return rows
        elif "val" in self.parts:  # in random order, as the training rows are after a split
            return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
        train_rows, val_rows = self._split_holdout(part, rows, self.val_fraction, self.split_seed, "val_fraction")
        return train_rows if split == "train" else val_rows

    def _split_holdout(self, part: str, rows: Tensor, fraction: float, seed: int, name: str) -> tuple[Tensor, Tensor]:
        groups = None
        if self.group_pattern is not None:
            files, names = self.parts[part], self._groups_of(part)
            # The two prefixes keep a patient's name apart from the path of a file that stands alone.
            keys = [
                f"alone {file.path_in_class.as_posix()}" if name is None else f"group {name}"
                for file, name in zip(files, names, strict=True)
            ]
            groups = [keys[row] for row in rows.tolist()]
        kept, held_out = split_holdout(self._labels(part)[rows], fraction, seed, groups, name=name)
        return rows[kept], rows[held_out]

    def _labels(self, part: str) -> Tensor:
        class_index = {name: index for index, name in enumerate(self.class_names)}
        return torch.tensor([class_index[file.class_name] for file in self.parts[part]])

    def _groups_of(self, part: str) -> list[str | None]:
        if part not in self._groups:
            files, pattern = self.parts[part], self.group_pattern
            self._groups[part] = [None] * len(files) if pattern is None else find_groups(files, pattern)
        return self._groups[part]

    def _decode_readable(self, part: str) -> Tensor:
        """Decodes a part; returns the rows of the files that could be read."""
        self._decode(part)
        self._refuse_unreadable_files()
        return self._readable_rows[part]

    def _decode(self, part: str) -> None:
        if part in self._caches:
            return
        paths = [file.path for file in self.parts[part]]
        names = [str(path.relative_to(self.folder)) for path in paths]
        owner = f"{self.folder.resolve()} {part}"
        self._caches[part], faults = decode_files(paths, names, self.image_shape, self.cache_dir, owner)
        self._readable_rows[part] = torch.tensor([row for row, name in enumerate(names) if name not in faults])
        self.faults |= faults
        if faults and self.skip_bad:
            log.warning("left out %d of %d %s images that cannot be read", len(faults), len(names), part)

    def _refuse_unreadable_files(self) -> None:
        if self.faults and not self.skip_bad:
            num_files = sum(len(self.parts[part]) for part in self._caches)
            faults = "; ".join(f"{printable(name)} ({fault})" for name, fault in self.faults.items())
            raise ValueError(
                f"{len(self.faults)} of {num_files} images cannot be read: {faults}: repair or remove them, or leave "
                "them out with skip_bad=true"
            )

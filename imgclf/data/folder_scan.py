"""Finds the image files of a folder, and which part and class each belongs to."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from imgclf.core.names import SPLITS
from imgclf.core.text import printable
from imgclf.imaging.image_files import SUFFIXES

UNDIVIDED = "whole"  # the only part of a folder that has no train/ and no test/


class ImageFile(NamedTuple):
    path: Path
    path_in_class: Path  # as seen from the class folder
    class_name: str


def scan_folder(root: Path, val_folder: bool = True) -> dict[str, list[ImageFile]]:
    """Finds the image files of ``root``, in ``{train[,val],test}/CLASS/`` or in ``CLASS/``, sorted by class and path.

    The parts are some of "train", "val" and "test", or the single part ``UNDIVIDED``. Without ``val_folder`` the files
    of ``val/`` join those of ``train/``.

    Raises:
        FileNotFoundError: a class folder holds no images.
        ValueError: there are fewer than two classes, or the classes of the parts differ.
    """
    folders = {split: root / split for split in SPLITS if (root / split).is_dir()}
    if "train" not in folders and "test" not in folders:
        folders = {UNDIVIDED: root}
    parts = {part: _scan_part(folder) for part, folder in folders.items()}
    if not val_folder and "train" in parts:
        parts["train"] += parts.pop("val", [])
    first_part, *other_parts = parts
    classes = class_names_of(parts[first_part])
    for part in other_parts:
        if (others := class_names_of(parts[part])) != classes:
            raise ValueError(
                f"root={printable(root)}: {part}/ has the classes {listed(others)}, {first_part}/ has "
                f"{listed(classes)}: they must be the same"
            )
    if len(classes) < 2:
        raise ValueError(
            f"root={printable(root)}: needs two class folders or more, found {listed(classes)}; "
            "images belong in {train,test}/CLASS/ or in CLASS/"
        )
    return parts


def class_names_of(files: Iterable[ImageFile]) -> list[str]:
    """The classes of the files, sorted."""
    return sorted({file.class_name for file in files})


def listed(names: Iterable[str]) -> str:
    """The names, as text for a message."""
    return ", ".join(map(printable, names)) or "none"


def _scan_part(part_folder: Path) -> list[ImageFile]:
    files = []
    for folder in sorted(path for path in part_folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if part_folder.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{printable(folder)}: a link to a folder that it lies in")
        paths = [
            Path(subfolder, name).relative_to(folder)
            for subfolder, _, names in os.walk(folder)  # it does not follow links to folders, which may lead in circles
            for name in names
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
        ]
        if not paths:
            raise FileNotFoundError(f"{printable(folder)}: a class folder without images ({', '.join(SUFFIXES)})")
        files += [ImageFile(folder / path, path, folder.name) for path in sorted(paths)]
    return files

"""Finds the image files of a folder, and which part and class each belongs to."""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from imgclf.core.names import SPLITS
from imgclf.core.text import printable, some_names
from imgclf.imaging.image_files import SUFFIXES, describe_unread, is_junk, walk_images

UNDIVIDED = "whole"  # the only part of a folder that has no train/ and no test/
# What people call the parts, in lower case and without "set", "data", "images" and other characters.
PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "development"),
    "test": ("test", "testing"),
}


class ImageFile(NamedTuple):
    path: Path
    path_in_class: Path  # as seen from the class folder
    class_name: str
    group: str | None = None  # the patient, writer or scene, where a table names it
    row: int = -1  # the row of the table that lists the file, from 0


@dataclass
class Scan:
    """What was found.

    Attributes:
        parts: the files of each of "train", "val" and "test", or of the single part ``UNDIVIDED``.
        notes: a line for everything that was understood in an unusual way or passed over.
    """

    parts: dict[str, list[ImageFile]]
    notes: list[str] = field(default_factory=list)


@functools.cache  # a table asks for every row
def part_of_name(name: str) -> str | None:
    """The part that the name of a folder, or a value in a table, stands for, such as "val" for "Validation_set"."""
    word = re.sub(r"[^a-z0-9]", "", name.lower())
    word = re.sub(r"(set|data|dataset|images|imgs|split)$", "", word)
    return next((part for part, names in PART_NAMES.items() if word in names), None)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts numbers within names by their value: "2" comes before "10"."""
    pieces = re.split(r"([0-9]+)", name)
    return [(0, int(piece), piece) if piece.isdigit() else (1, 0, piece) for piece in pieces if piece]


def class_names_of(files: Iterable[ImageFile]) -> list[str]:
    """The classes of the files, in natural order."""
    return sorted({file.class_name for file in files}, key=natural_key)


def scan_folder(root: Path, label_pattern: re.Pattern[str] | None = None) -> Scan:
    """Finds the image files of ``root``, in ``{train[,val],test}/CLASS/`` or in ``CLASS/``, sorted by class and path.

    With a ``label_pattern`` a file's class is what the pattern finds in the file's path below its part, instead of the
    name of its folder.

    Raises:
        FileNotFoundError: a class folder of the first part holds no images.
        ValueError: there are fewer than two classes, a part has classes that the first part lacks, or the folder lies
            in itself.
    """
    found = Scan({})
    folders = _part_folders(root, found.notes)
    unread: Counter[str] = Counter()
    for part, folder in folders.items():
        if label_pattern:
            files = list(_files_by_pattern(folder, label_pattern, unread, found.notes))
        else:
            files = _files_by_class(folder, unread, found.notes, is_first=not found.parts)
        if files or not found.parts:
            found.parts[part] = files
    if unread:
        found.notes.append(describe_unread(unread))
    check_classes(found, root)
    return found


def compiled(argument: str, pattern: str | None) -> re.Pattern[str] | None:
    """The regular expression that an argument gives; ValueError names the argument if it is none."""
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise ValueError(f"{argument}={pattern}: it is no regular expression ({error})") from error


def groups_of(files: Sequence[ImageFile], pattern: re.Pattern[str] | None, notes: list[str]) -> list[str | None]:
    """The group of each file: what the pattern finds in its path below its class folder, or else what a table says.

    It is None where neither knows it.

    Raises:
        ValueError: the pattern matches no file.
    """
    if pattern is None:
        return [file.group for file in files]
    paths = [file.path_in_class.as_posix() for file in files]
    matches = [pattern.search(path) for path in paths]
    if not any(matches):
        raise ValueError(f"group_pattern={pattern.pattern}: it matches no file, such as {printable(paths[0])}")
    if num_alone := matches.count(None):
        notes.append(f"group_pattern: {num_alone} of {len(paths)} files do not match; each stands alone")
    return [None if match is None else str(match[1 if pattern.groups else 0]) for match in matches]


def check_classes(found: Scan, root: Path) -> None:
    """Raises ValueError for fewer than two classes, or one that training lacks; notes what other parts lack."""
    first_part, *other_parts = found.parts
    classes = class_names_of(found.parts[first_part])
    if first_part == "test" or (first_part == "val" and "train" not in found.parts):  # for evaluation only
        classes = class_names_of(file for files in found.parts.values() for file in files)
    if len(classes) < 2:
        inner = next((path for path in _folders(root) if len(_folders(path)) > 1), None) if root.is_dir() else None
        hint = f"; did you mean root={printable(inner)}?" if inner else ""
        raise ValueError(
            f"root={printable(root)}: needs two class folders or more, found {some_names(classes)}; "
            f"images belong in {{train,test}}/CLASS/ or in CLASS/, or labels=TABLE.csv names their classes{hint}"
        )
    for part in other_parts:
        own = class_names_of(found.parts[part])
        if len(own) == 1 and own[0] not in classes:  # such as test/unknown/
            found.notes.append(
                f"passed over {part}/{own[0]}/: it is none of the classes of {first_part}; images=PATH predicts it"
            )
            del found.parts[part]
            continue
        if unknown := [name for name in own if name not in classes]:
            raise ValueError(
                f"root={printable(root)}: {part}/ has the classes {some_names(unknown)}, which {first_part}/ lacks "
                f"({some_names(classes)})"
            )


def _part_folders(root: Path, notes: list[str]) -> dict[str, Path]:
    """The folder of each part, or ``root`` as ``UNDIVIDED``."""
    named: dict[str, list[Path]] = {}
    for folder in _folders(root):
        if part := part_of_name(folder.name):
            named.setdefault(part, []).append(folder)
    if "train" not in named and "test" not in named:
        words = {folder.name: set(map(part_of_name, re.split(r"[^A-Za-z]", folder.name))) for folder in _folders(root)}
        if {"train", "test"} <= set().union(*words.values()):
            like = [name for name, parts in words.items() if parts & {"train", "val", "test"}]
            raise ValueError(
                f"root={printable(root)}: {some_names(like)} look like parts: call them train, val and test"
            )
        return {UNDIVIDED: root}
    for part, folders in named.items():
        if len(folders) > 1:
            names = " and ".join(f"{printable(folder.name)}/" for folder in folders)
            raise ValueError(f"root={printable(root)}: {names} both mean {part}: join them, or rename one")
    if renamed := [f"{printable(f.name)}/ as {part}" for part, (f,) in named.items() if f.name != part]:
        notes.append(f"took {', '.join(renamed)}")
    parts = {part: named[part][0] for part in SPLITS if part in named}
    unused = [folder for folder in _folders(root) if folder not in parts.values()]
    for folder, count in ((folder, sum(1 for _ in walk_images(folder, Counter()))) for folder in unused):
        if count:
            notes.append(
                f"passed over {printable(folder.name)}/ with {count} images: it is none of train, val and test"
            )
    return parts


def _files_by_class(part_folder: Path, unread: Counter[str], notes: list[str], is_first: bool) -> list[ImageFile]:
    folders = _folders(part_folder)
    names = {folder.name for folder in folders}
    loose = sum(path.is_file() and path.suffix.lower() in SUFFIXES for path in part_folder.iterdir())
    if loose and not folders and not is_first:
        name, path = printable(part_folder.name), printable(part_folder)
        notes.append(f"passed over {name}/: its images have no classes; images={path} predicts them")
        return []
    if loose and folders:
        notes.append(f"passed over {loose} images that lie beside the class folders of {printable(part_folder)}")
    files = []
    for folder in folders:
        if part_folder.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{printable(folder)}: this link leads to a folder that it lies in")
        inner = {path.name: part_of_name(path.name) for path in _folders(folder)}
        repeated = [name for name in inner if name in names and name != folder.name]
        if {"train", "test"} <= set(inner.values()):
            repeated = [name for name, part in inner.items() if part]
        if repeated:
            raise ValueError(
                f"{printable(folder)} holds folders called {some_names(repeated)}, so it is a data set of its own: "
                f"remove it, or give root={printable(folder)}"
            )
        paths = sorted(path.relative_to(folder) for path in walk_images(folder, unread))
        if not paths and is_first:
            raise FileNotFoundError(f"{printable(folder)}: a class folder without images ({', '.join(SUFFIXES)})")
        files += [ImageFile(folder / path, path, folder.name) for path in paths]
    return files


def _files_by_pattern(
    folder: Path, pattern: re.Pattern[str], unread: Counter[str], notes: list[str]
) -> Iterator[ImageFile]:
    paths = sorted(path.relative_to(folder) for path in walk_images(folder, unread))
    matches = {path: pattern.search(path.as_posix()) for path in paths}
    unmatched = [path for path in paths if not matches[path]]
    if paths and len(unmatched) == len(paths):
        raise ValueError(f"label_pattern={pattern.pattern}: it matches no file, such as {printable(paths[0])}")
    if unmatched:
        example = printable(unmatched[0])
        notes.append(f"passed over {len(unmatched)} images that label_pattern does not match, such as {example}")
    for path, match in matches.items():
        if match:
            yield ImageFile(folder / path, path, str(match[1 if pattern.groups else 0]))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not is_junk(path))

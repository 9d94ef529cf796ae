"""Reads a table that names the class of each image file."""

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from imgclf.core.text import printable, some_names
from imgclf.data.folder_scan import UNDIVIDED, ImageFile, Scan, check_classes, part_of_name
from imgclf.imaging.image_files import SUFFIXES, is_junk

# The usual names of each column, in lower case and without spaces and punctuation. The first that a table has counts.
COLUMNS = {
    "file": ("file", "filename", "filepath", "path", "image", "imagename", "imagepath", "imageindex", "imageid", "img",
             "id"),
    "label": ("label", "labels", "class", "classname", "category", "target", "diagnosis", "dx", "findinglabels"),
    "split": ("split", "set", "subset", "partition", "part"),
    "group": ("group", "patient", "patientid", "subject", "subjectid", "writer", "case", "caseid"),
}  # fmt: skip
REQUIRED = ("file", "label")


class Row(NamedTuple):
    file: str  # with forward slashes
    label: str  # empty where it is unknown
    split: str = ""
    group: str = ""


def read_label_table(path: Path, columns: Mapping[str, str] | None = None) -> list[Row]:
    """Reads the rows of a table with a header line, separated by commas, semicolons, tabs or bars.

    The text is UTF-8, UTF-16 with a byte order mark, or Windows' Latin. Labels that are whole numbers, such as 7.0,
    lose their fraction.

    Args:
        columns: the table's own name for any of "file", "label", "split" and "group", or "" for none; see
            ``COLUMNS`` for the names that are understood.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: a column is missing, or a line has too few cells.
    """
    header, cells_of_rows = read_cells(path)
    places = _places(path, header, columns or {})
    rows = []
    for cells in cells_of_rows:
        file, label, split, group = ("" if at is None else cells[at].strip() for at in places.values())
        rows.append(Row(file.replace("\\", "/"), label, split, group))
    if any(row.label for row in rows) and all(re.fullmatch(r"(-?\d+\.0*)?", row.label) for row in rows):
        rows = [row._replace(label=row.label.partition(".")[0]) for row in rows]
    return rows


def read_cells(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of a table's columns, and the cells of each row that is not empty; see ``read_label_table``."""
    if not path.is_file():
        raise FileNotFoundError(f"labels={printable(path)}: no such table")
    content = path.read_bytes()
    if content.startswith((b"PK", b"\xd0\xcf")):
        raise ValueError(f"labels={printable(path)}: a spreadsheet; save it as CSV")
    lines = _decode(content).splitlines()
    delimiter = max(",;\t|", key=(lines or [""])[0].count)
    table = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    header = [cell.strip() for cell in next(table, [])]
    rows = []
    for cells in table:
        if not any(cells):
            continue
        if len(cells) < len(header):
            raise ValueError(
                f"{printable(path)}, line {table.line_num}: {len(cells)} cells, the header has {len(header)}"
            )
        rows.append(cells)
    return header, rows


def find_table(labels: str, folders: Sequence[Path]) -> Path:
    """The path of a table in the first of the folders that holds it; if none does, its path in the first folder."""
    paths = [(folder / Path(labels).expanduser()).absolute() for folder in folders]
    return next((path for path in paths if path.is_file()), paths[0])


def scan_table(path: Path, root: Path, columns: Mapping[str, str] | None = None, skip_missing: bool = False) -> Scan:
    """The files that a table lists, as seen from ``root`` or from the table's folder; see ``read_label_table``.

    A file may be named without its ending, or without its folder where no other has its name. Rows without a label, and
    images that the table does not list, are passed over with a note; with ``skip_missing`` files that are missing too.

    Raises:
        FileNotFoundError, ValueError: as of ``read_label_table``; files are missing, a file has two labels, or a split
            is called by an unknown name.
    """
    rows = read_label_table(path, columns)
    index = FileIndex([root, path.parent])
    found, notes = Scan({}), []
    files: dict[Path, tuple[str, ImageFile]] = {}
    missing, unlabelled = [], 0
    for number, row in enumerate(rows):
        if not row.label or not row.file:
            unlabelled += 1
            continue
        if (file := index.find(row.file)) is None:
            missing.append(row.file)
            continue
        if row.split and not (part := part_of_name(row.split)):
            raise ValueError(f"{printable(path)}: split {printable(row.split)}: use train, val and test")
        part = part_of_name(row.split) or ("train" if any(row.split for row in rows[:1]) else UNDIVIDED)
        one = ImageFile(file, Path(row.file), row.label, row.group or None, number)
        before = files.setdefault(file, (part, one))
        if (before[0], before[1].class_name) != (part, row.label):
            raise ValueError(f"{printable(path)}: {printable(row.file)} is listed twice, as {before[1].class_name} too")
    if missing and skip_missing and files:
        notes.append(f"passed over {len(missing)} files of {printable(path.name)} that are not there")
    elif missing:
        raise FileNotFoundError(
            f"{printable(path)}: {len(missing)} of {len(rows)} files are not there ({some_names(missing)}), neither as "
            f"seen from {printable(root)} nor from the table's folder: set root to their folder, "
            "or leave them out with skip_bad=true"
        )
    for part, one in sorted(files.values(), key=lambda pair: (pair[1].class_name, pair[1].path)):
        found.parts.setdefault(part, []).append(one)
    order = [part for part in ("train", "val", "test", UNDIVIDED) if part in found.parts]
    if len(order) > 1 and UNDIVIDED in order:
        raise ValueError(f"{printable(path)}: {len(found.parts[UNDIVIDED])} files have no split: give every file one")
    found.parts = {part: found.parts[part] for part in order} or {UNDIVIDED: []}
    if unlabelled:
        notes.append(f"passed over {unlabelled} rows of {printable(path.name)} that have no label")
    if unlisted := index.count - len(files):
        notes.append(f"passed over {unlisted} images that {printable(path.name)} does not list")
    found.notes = notes
    check_classes(found, root)
    return found


class FileIndex:
    """Finds files by what a table calls them. All folders are listed once, which is faster than a search for each."""

    def __init__(self, folders: list[Path]) -> None:
        self._folders = folders
        self._by_path: dict[str, str] = {}
        names: Counter[str] = Counter()
        by_name: dict[str, str] = {}
        for folder in dict.fromkeys(folders):
            seen_here, visited = set(self._by_path.values()), set()
            for subfolder, subfolders, files in os.walk(folder, followlinks=True):
                if (real := os.path.realpath(subfolder)) in visited:  # links lead in circles
                    subfolders.clear()
                    continue
                visited.add(real)
                subfolders[:] = [name for name in subfolders if not is_junk(name)]
                below = os.path.relpath(subfolder, folder)
                for name in files:
                    stem, ending = os.path.splitext(name)
                    if ending.lower() not in SUFFIXES or is_junk(name):
                        continue
                    path = os.path.join(subfolder, name)
                    relative = name if below == "." else f"{below}/{name}".replace(os.sep, "/")
                    self._by_path.setdefault(relative, path)
                    self._by_path.setdefault(os.path.splitext(relative)[0], path)
                    if path not in seen_here:
                        for short in (name, stem):
                            names[short] += 1
                            by_name[short] = path
        self._by_name = {name: path for name, path in by_name.items() if names[name] == 1}
        self.count = len(set(self._by_path.values()))

    def find(self, name: str) -> Path | None:
        """The file of this name, or None."""
        name = name.removeprefix("./")
        found = self._by_path.get(name) or self._by_name.get(name)
        if found is None and (os.path.isabs(name) or ".." in name):
            paths = [os.path.normpath(os.path.join(folder, name)) for folder in self._folders]
            found = next((path for path in paths if os.path.isfile(path)), None)
        return Path(found) if found else None


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _places(path: Path, header: list[str], columns: Mapping[str, str]) -> dict[str, int | None]:
    """Where in a row each of ``COLUMNS`` stands; None for one that the table lacks."""
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise ValueError(f"columns={dict(columns)}: {unknown[0]} is none of {', '.join(COLUMNS)}")
    words = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in header]
    places: dict[str, int | None] = {}
    for column, usual in COLUMNS.items():
        if columns.get(column) == "":  # the table has a column of a usual name that means something else
            places[column] = None
        elif column in columns:
            if columns[column] not in header:
                raise ValueError(f"{printable(path)} has no column {columns[column]}; it has {', '.join(header)}")
            places[column] = header.index(columns[column])
        else:
            places[column] = next((words.index(name) for name in usual if name in words), None)
        if places[column] is None and column in REQUIRED:
            raise ValueError(
                f"{printable(path)}: no column for the {column}; it has {', '.join(header) or 'no header'}: name it, "
                f"as in columns={{{column}: NAME}}"
            )
    return places

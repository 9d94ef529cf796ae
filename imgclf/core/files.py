"""Files that are written whole or not at all, and files and folders that have to be there."""

import contextlib
import csv
import io
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from imgclf.core.text import printable


def write_file(path: Path, data: str | bytes) -> Path:
    """Writes a file under a temporary name and moves it into place."""
    with _new_file(path) as file:
        file.write(data.encode(errors="surrogateescape") if isinstance(data, str) else data)
    return path


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which gets its name at the end of the context; OSError says which one cannot be written."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            yield file
        os.replace(unfinished, path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


def write_json(path: Path, values: Mapping[str, Any]) -> Path:
    """Writes a dict; NaN, which JSON does not know, becomes null."""
    return write_file(path, json.dumps(_defined(values), indent=2) + "\n")


def _defined(value: Any) -> Any:
    """The value with None for every NaN in it."""
    if isinstance(value, Mapping):
        return {key: _defined(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any] | Mapping[str, Any]]) -> Path:
    """Writes a table; the cells of None and NaN stay empty.

    A row is a sequence as long as the columns, of which two may have the same name, or a dict of some of them.
    """
    with _new_file(path) as file:  # row by row: the predictions of many images and classes are gigabytes of text
        text = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            cells = [row.get(name) for name in columns] if isinstance(row, Mapping) else row
            writer.writerow("" if cell != cell else cell for cell in cells)
        text.detach()  # flushes it
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table that ``write_csv`` wrote, as any terminal shows them."""
    with path.open(newline="", errors="surrogateescape") as lines:
        return [{name: printable(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def check_checkpoint_file(path: str | Path) -> None:
    """Raises FileNotFoundError, which says where checkpoints are, unless the path is that of a file."""
    if Path(path).is_dir():
        raise FileNotFoundError(f"{path}: this is a folder; name a file, such as {path}/checkpoints/best.ckpt")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; the checkpoints of a run are in its checkpoints/ folder")


def find_folder(root: str, data_dir: str | Path) -> Path:
    """The folder that ``root`` names, as seen from here or else from ``data_dir``.

    Raises:
        FileNotFoundError: there is no such folder in either place.
    """
    path = Path(root).expanduser()
    places = [path.absolute(), (Path(data_dir).expanduser() / path).absolute()]
    for place in places:
        if place.is_dir():
            return place
    looked_at = " or ".join(map(printable, dict.fromkeys(places)))
    raise FileNotFoundError(f"root={root}: no such folder ({looked_at}); give it as root=DIR")

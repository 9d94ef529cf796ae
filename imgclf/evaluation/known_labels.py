"""The true classes of image files, where a table beside them or the names of their folders tell."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path

from imgclf.core.text import some_names

log = logging.getLogger(__name__)


def known_labels(files: Sequence[Path], class_names: Sequence[str]) -> list[int | None]:
    """Finds the class index of each file; None where nothing names a class.

    A table labels.csv with the columns file and label, in any folder above the file, names the class. The nearest
    table that lists the file counts. Where no table lists it, the file's folder may be called like a class.

    Raises:
        ValueError: a labels.csv is not such a table.
    """
    tables: dict[Path, dict[Path, str]] = {}
    labels, listed = [], set()
    for file in files:
        path, name = file.absolute(), file.parent.name
        for folder in path.parents:
            if folder not in tables:
                tables[folder] = _read_table(folder / "labels.csv")
            if path in tables[folder]:
                name = tables[folder][path]
                listed.add(name)
                break
        labels.append(class_names.index(name) if name in class_names else None)
    used = [folder / "labels.csv" for folder, table in tables.items() if table]
    unknown = sorted(listed - set(class_names))
    if used and not listed:
        log.warning("%s: names none of these images (a file is named as seen from its folder)", used[0])
    elif unknown:
        log.warning("%s: %s is none of the classes (%s)", used[0], some_names(unknown), some_names([*class_names]))
    return labels


def _read_table(path: Path) -> dict[Path, str]:
    """The path of each image that the table lists, to the name of its class. Empty if there is no table."""
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return {path.parent / row["file"]: row["label"].strip() for row in csv.DictReader(file)}
    except (KeyError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a table of the columns file and label ({error})") from error

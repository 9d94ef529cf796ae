"""The true classes of image files, where a table beside them or the names of their folders tell."""

import logging
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from imgclf.core.text import some_names
from imgclf.data.label_table import read_label_table

log = logging.getLogger(__name__)


def known_labels(files: Sequence[Path], class_names: Sequence[str]) -> list[int | None]:
    """Finds the class index of each file; None where nothing names a class.

    A table labels.csv (see ``read_label_table``) in any folder above the file names the class. The nearest table that
    lists the file counts. Where no table lists it, the file's folder may be called like a class.

    Raises:
        ValueError: a labels.csv is not such a table.
    """
    tables: dict[Path, dict[str, str] | None] = {}
    labels, listed = [], set()
    from_folders: dict[str, Path] = {}  # the name of a class, to a folder that is called so
    for file in files:
        path = Path(os.path.abspath(file))
        name = path.parent.name
        for folder in path.parents:
            if folder not in tables:
                tables[folder] = _labels_of(folder / "labels.csv")
            below = path.relative_to(folder)
            called = (below.as_posix(), below.with_suffix("").as_posix())
            if label := next((table[one] for one in called if one in (table := tables[folder] or {})), None):
                name = label
                listed.add(name)
                break
        else:
            if name in class_names:
                from_folders.setdefault(name, path.parent)
        labels.append(class_names.index(name) if name in class_names else None)
    used = [folder / "labels.csv" for folder, table in tables.items() if table is not None]
    unknown = sorted(listed - set(class_names))
    if from_folders:
        log.info("labels are taken from the folders' names: %s", some_names(from_folders.values()))
    if used and not listed:
        log.warning("%s: names none of these images (a file is named as seen from its folder)", used[0])
    elif unknown:
        log.warning("%s: %s is none of the classes (%s)", used[0], some_names(unknown), some_names(class_names))
    return labels


def _labels_of(table: Path) -> dict[str, str] | None:
    """What a table calls each image, as seen from its folder, to the name of its class. None if there is no table."""
    if not table.is_file():
        return None
    return {posixpath.normpath(row.file): row.label for row in read_label_table(table) if row.label}

"""Text for the terminal, for files and for command lines."""

import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # characters that a terminal acts on


def printable(name: str | Path) -> str:
    """A file name that any terminal and file takes: bytes that are no UTF-8 are shown as \\xNN."""
    return str(name).encode(errors="surrogateescape").decode(errors="backslashreplace")


def decimals(value: float | str | None) -> str:
    """A number with four decimals; "undefined" for None, NaN and an empty text."""
    return "undefined" if value in (None, "") or math.isnan(float(value)) else f"{float(value):.4f}"


def some_names(names: Iterable[str | Path]) -> str:
    """The first five names, ``printable``, with an ellipsis if there are more; "none" if there is none."""
    shown = [printable(name) for name in names]
    return ", ".join(shown[:5]) + (", ..." if len(shown) > 5 else "") or "none"


def below_common_folder(paths: Sequence[str]) -> list[str]:
    """The paths as seen from the deepest folder that holds them all; names without a folder stay as they are."""
    folders = {os.path.dirname(path) for path in paths}
    if len({os.path.isabs(folder) for folder in folders}) != 1:
        return list(paths)
    common = os.path.commonpath(folders)
    return [path.removeprefix(common).lstrip("/\\") for path in paths]


def tolerate_encoding() -> None:
    """Has characters that the terminal's encoding lacks be shown as \\uNNNN; they would end the program."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a test or a notebook may have put something else there
            stream.reconfigure(errors="backslashreplace")  # pyrefly: ignore[not-callable]

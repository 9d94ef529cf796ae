"""Text for the terminal, for files and for command lines."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

from rich import get_console

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # characters that a terminal acts on


def printable(name: str | Path) -> str:
    """A file name that any terminal and file takes: bytes that are no UTF-8 are shown as \\xNN."""
    return str(name).encode(errors="surrogateescape").decode(errors="backslashreplace")


def decimals(value: float | str | None) -> str:
    """A number with four decimals; "undefined" for None, NaN and an empty text."""
    return "undefined" if value in (None, "") or math.isnan(float(value)) else f"{float(value):.4f}"


def print_line(text: str) -> None:
    """Prints the text on the console as it is: without colours, markup or line breaks."""
    get_console().print(text, highlight=False, markup=False, soft_wrap=True)


def some_names(names: list[str]) -> str:
    """The first five names, with an ellipsis if there are more."""
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def below_common_folder(paths: Sequence[str]) -> list[str]:
    """The paths as seen from the deepest folder that holds them all; names without a folder stay as they are."""
    folders = {os.path.dirname(path) for path in paths}
    if len({os.path.isabs(folder) for folder in folders}) != 1:
        return list(paths)
    common = os.path.commonpath(folders)
    return [path.removeprefix(common).lstrip("/\\") for path in paths]

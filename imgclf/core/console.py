"""What the commands print: one look on wide and narrow terminals, in files, without colours and without UTF-8."""

import logging
from collections.abc import Iterable, Mapping, Sequence

from rich import box, get_console
from rich.table import Column, Table
from rich.text import Text

LABEL = 9  # characters of the longest label, "dashboard"


def print_line(text: str, style: str = "") -> None:
    """Prints text as it is: without markup, and without line breaks of its own, so that it can be copied."""
    get_console().print(Text(text, style), soft_wrap=True)


def labelled(lines: Mapping[str, str]) -> list[str]:
    """Lines of a label and a text, such as "report:  run/report.html", with all texts below each other."""
    return [f"{label:>{LABEL}}:  {text}" for label, text in lines.items()]


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str] | None]) -> None:
    """Prints an empty line, and rows of text under a title; the first column may be folded, the others are flush right.

    None in place of a row draws a rule.
    """
    first, *others = (Text(name) for name in columns)
    right = [Column(name, justify="right", no_wrap=True) for name in others]
    table = Table(Column(first, overflow="fold"), *right, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in rows:
        table.add_section() if row is None else table.add_row(*map(Text, row))
    print_line("")
    print_line(title, "bold")  # rich would fold it to the width of the table
    get_console().print(table)


def is_interactive() -> bool:
    """Whether a progress bar can be drawn anew in its place: on a terminal or in a notebook, not in a log file."""
    console = get_console()
    return console.is_interactive or console.is_jupyter


class ConsoleHandler(logging.Handler):
    """Prints log records above a progress bar; warnings are yellow."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print_line(self.format(record), "yellow" if record.levelno >= logging.WARNING else "")
        except OSError:
            self.handleError(record)

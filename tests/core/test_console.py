import io
import logging

import pytest
import rich
from rich.console import Console
from rich.text import Text

from imgclf.core.console import ConsoleHandler, labelled, print_line, print_table
from imgclf.core.text import tolerate_encoding


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 40 columns; ``terminal(encoding)`` gives its stream."""

    def of(encoding: str = "utf-8") -> io.TextIOWrapper:
        stream = io.TextIOWrapper(io.BytesIO(), encoding, write_through=True)
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr(rich, "_console", Console(force_terminal=True, width=40, _environ={}))
        return stream

    return of


def text(stream: io.TextIOWrapper) -> str:
    return stream.buffer.getvalue().decode(stream.encoding)


def test_text_is_printed_as_it_is(terminal):
    stream = terminal()
    line = "'[red]' 12 /a/path that is longer than the forty columns of this terminal"
    print_line(line)
    assert text(stream) == f"{line}\n"


def test_labels_are_aligned():
    assert labelled({"data": "x", "dashboard": "y"}) == ["     data:  x", "dashboard:  y"]


def test_a_terminal_without_utf8_gets_tables_and_escaped_characters(terminal):
    stream = terminal("ascii")
    tolerate_encoding()
    print_line("şeker")
    print_table("title", ["class", "n"], [("ş [b]", "1"), None, ("all", "12")])
    lines = text(stream).splitlines()
    assert lines[0] == "\\u015feker"
    assert "\\u015f [b]" in text(stream)
    assert lines[-1].split("|") == ["all   ", " 12"]


def test_the_first_column_is_folded_and_numbers_are_whole(terminal):
    stream = terminal()
    print_table("", ["class", "accuracy", "interval"], [("a" * 60, "0.1234", "0.1000 to 0.2000")])
    plain = Text.from_ansi(text(stream)).plain
    assert max(map(len, plain.splitlines())) <= 40
    assert "0.1234   0.1000 to 0.2000" in plain
    assert plain.count("a") == 60 + "class accuracy interval".count("a")


def test_warnings_are_yellow(terminal):
    stream = terminal()
    for level in (logging.INFO, logging.WARNING):
        ConsoleHandler().emit(logging.LogRecord("imgclf", level, "", 0, "[said] %d", (3,), None))
    assert text(stream) == "[said] 3\n\x1b[33m[said] 3\x1b[0m\n"

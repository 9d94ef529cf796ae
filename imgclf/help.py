"""--help of train.py and evaluate.py, made from the configuration files; and the arguments of the smaller commands."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

WIDTH = 120  # characters of a line
COLUMN = 42  # where comments begin
LINE = re.compile(r"(?P<indent> *)(?P<dash>- )?(?P<name>[\w. /]+):(?P<value>[^#]*?)(?:\s*# (?P<comment>.*))?")
NO_OPTIONS = ("experiment", "sweep", "launcher", "logger")  # groups that set the options of other groups
INTERNAL = re.compile(r"defaults\b.*|hydra\b.*|.*(_target_|_partial_|_dir|dirpath|filename|_end|_counter|\.mode)")


class Option(NamedTuple):
    """A line of a configuration file: the option's name, its default, and what the comment says."""

    name: str
    default: str
    comment: str


def help_text(conf: Path, name: str, usage: str) -> str:
    """What ``python NAME.py --help`` prints.

    Args:
        conf: the folder of the configuration files.
        name: of the main file and the script, such as "train".
        usage: what comes first.
    """
    main = (conf / f"{name}.yaml").read_text()
    groups = {entry.name: entry.comment for entry in _defaults(main) if (conf / entry.name).is_dir()}
    lines = [usage, "", "GROUPS (group=choice)"]
    for group, comment in groups.items():
        choices = " ".join(sorted(file.stem for file in (conf / group).glob("*.yaml")))
        lines += _entry(group, f"{choices}: {comment}" if comment else choices, column=16)
    lines += ["", "OPTIONS (option=value)"]
    common = [option for option in _options(main) if not option.name.startswith(("defaults", "hydra"))]
    for option in common:
        lines += _entry(f"{option.name}={option.default}", option.comment)
    shown = {option.name for option in common}
    for group in [group for group in groups if group not in NO_OPTIONS]:
        for option in _group_options(conf / group):
            if f"{group}.{option.name}" not in shown:
                lines += _entry(f"{group}.{option.name}={option.default}", option.comment)
    return "\n".join([*lines, "", f"python {name}.py --cfg job ...  shows the composed configuration"])


def _group_options(folder: Path) -> list[Option]:
    """The options of all choices of a group; one that not all choices have says which have it."""
    texts = {file.stem: file.read_text() for file in folder.glob("*.yaml")}
    found: dict[str, dict[str, Option]] = {}  # option to choice to what is said there
    for choice in sorted(texts, key=lambda choice: ("defaults:" in texts[choice], choice)):  # those that inherit last
        for option in _options(texts[choice]):
            if not INTERNAL.fullmatch(option.name):
                found.setdefault(option.name, {})[choice] = option
    options = []
    for name, said in found.items():
        first = next(iter(said.values()))
        comment = next((option.comment for option in said.values() if option.comment), "")
        own = [choice for choice in said if "defaults:" not in texts[choice]] or list(said)
        if len(own) < sum("defaults:" not in text for text in texts.values()) and len(own) < 4:
            comment = f"{', '.join(own)}: {comment}" if comment else f"{', '.join(own)}"
        options.append(Option(name, first.default, comment))
    return options


def _options(text: str) -> Iterator[Option]:
    """The leaves of a configuration file, with dotted names."""
    path: list[tuple[int, str]] = []
    lines = [line for line in map(LINE.fullmatch, text.splitlines()) if line and not line["dash"]]
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        depth = len(line["indent"])
        path = [(indent, name) for indent, name in path if indent < depth] + [(depth, line["name"])]
        if following is None or len(following["indent"]) <= depth:
            yield Option(".".join(name for _, name in path), line["value"].strip(), line["comment"] or "")


def _defaults(text: str) -> Iterator[Option]:
    """The entries of a configuration file's list of defaults: group, choice and comment."""
    for line in map(LINE.fullmatch, text.splitlines()):
        if line and line["dash"]:
            yield Option(line["name"], line["value"].strip(), line["comment"] or "")


def _entry(name: str, comment: str, column: int = COLUMN) -> list[str]:
    """A name and its comment beside it, in as many lines as it needs."""
    first, *rest = wrap(comment, WIDTH - column) or [""]
    if len(name) + 3 > column and comment:
        return [f"  {name}", *(" " * column + line for line in (first, *rest))]
    return [f"  {name:<{column - 2}}{first}".rstrip(), *(" " * column + line for line in rest)]


def key_values(words: Sequence[str], usage: str, **defaults: str) -> dict[str, str] | None:
    """The arguments of a small command, ``name=value`` each; None after printing ``usage`` for --help.

    Args:
        words: the command line.
        usage: what --help prints.
        defaults: the known names with their defaults; "" for one that must be given.

    Raises:
        ValueError: an unknown word, or one that is missing.
    """
    if {"-h", "--help"} & set(words):
        print(usage.strip())
        return None
    values = dict(defaults)
    for word in words:
        name, equals, value = word.partition("=")
        if name not in defaults or not equals:
            raise ValueError(f"unknown argument {word}: give {', '.join(f'{name}=...' for name in defaults)}")
        values[name] = value.strip("'\"")  # quoted for Hydra, as the other commands need it
    if missing := next((name for name, value in values.items() if not value), None):
        raise ValueError(f"{missing} is missing: give {missing}=..., as --help shows")
    return values

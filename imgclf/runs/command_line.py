"""Options that are text, such as paths: they are typed as they are, and printed so that they can be pasted."""

import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString

TEXT = re.compile(
    r"(?P<name>\+{0,2}(data\.(root|labels|backgrounds|positive|group_pattern|label_pattern|train|test|data_dir|cache_dir)"
    r"|data_dir|cache_dir|ckpt|images|by|to|model\.weights|hydra\.(run|sweep)\.dir))=(?P<value>.*)",
    re.DOTALL,
)
GROUPS_WITH_NONE = ("logger", "callbacks", "scheduler", "augmentation")
GROUPS_WITHOUT_A_CHOICE = ("experiment", "sweep", "launcher")
LISTS = ("images", "ckpt")  # may be a list in square brackets
FUNCTION = re.compile(r"(choice|glob|shuffle|sort|str)\(.*\)")  # of Hydra, for sweeps


def quote_text(words: Sequence[str]) -> list[str]:
    """Quotes the values of text options for Hydra, so that nobody quotes for both the shell and Hydra.

    Values with quotes, null and values with ${...} stay as they are. In a sweep (-m) commas separate values, unless the
    whole is the path of something that exists.

    Example:
        >>> quote_text(["data.root=my images (2)", "seed=1"])
        ["data.root='my images (2)'", 'seed=1']
    """
    is_sweep = bool({"-m", "--multirun"} & set(words))
    quoted = []
    for word in words:
        match = TEXT.fullmatch(word)
        quoted.append(f"{match['name']}={_quoted(match['name'], match['value'], is_sweep)}" if match else word)
    return quoted


def null_groups(words: Sequence[str]) -> list[str]:
    """Takes null as a group's choice for none, as in scheduler=null; Hydra itself would refuse it."""
    dropped = {f"{group}=null" for group in GROUPS_WITHOUT_A_CHOICE}
    none = {f"{group}=null": f"{group}=none" for group in GROUPS_WITH_NONE}
    return [none.get(word, word) for word in words if word not in dropped]


def resumed_words(words: Sequence[str]) -> list[str]:
    """The command line, completed by the options that a run was started with, if resume=true continues it.

    An option that is typed again replaces the run's own.
    """
    typed = {word.partition("=")[0] for word in words}
    folders = [unquoted(word).partition("=")[2] for word in words if word.startswith("hydra.run.dir=")]
    file = Path(folders[-1] if folders else "") / "environment.json"
    if "resume=true" not in words or not folders or not file.is_file() or {"-m", "--multirun"} & typed:
        return list(words)
    _, *started = json.loads(file.read_text())["command"]
    if {"-m", "--multirun"} & set(started):
        return list(words)
    return [*(word for word in started if word.partition("=")[0] not in typed), *words]


def unquoted(word: str) -> str:
    """A word that ``quote_text`` would quote, without its quotes."""
    match = TEXT.fullmatch(word)
    if match and _is_quoted(match["value"]):
        return f"{match['name']}={OverridesParser.create().parse_override(word).value()}"
    return word


def shell_command(words: Iterable[str]) -> str:
    """A command that can be pasted into a shell."""
    return shlex.join(map(unquoted, words))


def _quoted(name: str, value: str, is_sweep: bool) -> str:
    if value in ("", "null") or "${" in value or _is_quoted(value) or (is_sweep and FUNCTION.fullmatch(value)):
        return value
    exists = Path(value).expanduser().exists()
    if name in LISTS and value[0] + value[-1] == "[]" and not exists:
        return f"[{','.join(map(_quote, value[1:-1].split(',')))}]"
    if "," in value and not exists and (is_sweep or name == "ckpt"):
        return ",".join(map(_quote, value.split(",")))
    return _quote(value)


def _is_quoted(value: str) -> bool:
    return len(value) > 1 and value[0] == value[-1] and value[0] in "'\""


def _quote(value: str) -> str:
    return value if _is_quoted(value.strip()) else QuotedString(value.strip(), Quote.single).with_quotes()

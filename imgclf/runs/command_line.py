"""Words of the command line: text needs no second quotes, null means none; a run is continued or repeated."""

import argparse
import json
import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import OmegaConf

TEXT = re.compile(
    r"(?P<name>\+{0,2}(data\.(root|labels|backgrounds|positive|group_pattern|label_pattern|train|test|data_dir|cache_dir"
    r"|class_map|columns)|data_dir|cache_dir|ckpt|images|by|to|name|model\.weights|hydra\.(run|sweep)\.dir))"
    r"=(?P<value>.*)",
    re.DOTALL,
)
DICTIONARIES = ("class_map", "columns")  # options of data that map texts to texts
QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)  # as Hydra reads it
GROUPS_WITH_NONE = ("logger", "callbacks", "scheduler", "augmentation")
GROUPS_WITHOUT_A_CHOICE = ("experiment", "sweep", "launcher")
LISTS = ("images", "ckpt")  # options that may be a list in square brackets
FUNCTION = re.compile(r"(choice|glob|shuffle|sort|str)\(.*\)")  # Hydra's functions for sweeps


def quote_text(words: Sequence[str]) -> list[str]:
    """Quotes the values of text options for Hydra, so that nobody quotes for both the shell and Hydra.

    Values with quotes, null and values with ${...} stay as they are. In a sweep (-m) commas separate values, unless the
    whole is the path of something that exists.

    Example:
        >>> quote_text(["ckpt=my run (2)/checkpoints/best.ckpt", "seed=1"])
        ["ckpt='my run (2)/checkpoints/best.ckpt'", 'seed=1']
    """
    is_sweep = bool({"-m", "--multirun"} & set(words))
    quoted = []
    for word in words:
        if match := TEXT.fullmatch(word):
            word = f"{match['name']}={_quoted(match['name'], match['value'], is_sweep)}"
        quoted.append(word)
    return quoted


def read_dictionaries(data: Any) -> None:
    """Reads the options that are dictionaries, such as {normal: NORMAL}, as YAML, and takes all names for text.

    Hydra's own syntax allows no keys in other scripts, and takes 1 for a number. ``data`` is a DictConfig.
    """
    for name in DICTIONARIES:
        if isinstance(text := data.get(name), str):
            spaced = text if ": " in text else text.replace(":", ": ")
            try:
                data[name] = dict(yaml.load(spaced, yaml.BaseLoader))
            except (yaml.YAMLError, TypeError, ValueError) as error:
                raise ValueError(f"data.{name}={text}: write a dictionary of names, such as {{a: b, c: d}}") from error


def null_groups(words: Sequence[str]) -> list[str]:
    """Takes null as a group's choice for none, as in scheduler=null; Hydra itself would refuse it."""
    dropped = {f"{group}=null" for group in GROUPS_WITHOUT_A_CHOICE}
    none = {f"{group}=null": f"{group}=none" for group in GROUPS_WITH_NONE}
    return [none.get(word, word) for word in words if word not in dropped]


def resumed_words(words: Sequence[str]) -> list[str]:
    """The command line, completed by the options that a run was last started with, if resume=true continues it.

    An option that is typed again replaces the run's own. A job of a sweep may be continued too.
    """
    typed = {word.partition("=")[0] for word in words}
    folders = [unquoted(word).partition("=")[2] for word in words if word.startswith("hydra.run.dir=")]
    if "resume=true" not in words or not folders or {"-m", "--multirun"} & typed:
        return list(words)
    job, environment = (Path(folders[-1]) / name for name in ("job.json", "environment.json"))
    if job.is_file():
        started = json.loads(job.read_text())["overrides"]
    elif environment.is_file():
        first = json.loads(environment.read_text())
        _, *started = first.get("resumed", [first])[-1].get("command", first["command"])
    else:
        return list(words)
    return [*(word for word in started if word.partition("=")[0] not in typed), *words]


def unquoted(word: str) -> str:
    """A word that ``quote_text`` would quote, without its quotes."""
    if (match := TEXT.fullmatch(word)) and QUOTED.fullmatch(match["value"]):
        return f"{match['name']}={_parsed(match['value'])}"
    return word


def shell_command(words: Iterable[str]) -> str:
    """A command that can be pasted into a shell."""
    return shlex.join(map(unquoted, words))


def _parsed(value: str) -> Any:
    return OverridesParser.create().parse_override(f"text={value}").value()


def _quoted(name: str, value: str, is_sweep: bool) -> str:
    if value in ("", "null") or "${" in value or QUOTED.fullmatch(value) or (is_sweep and FUNCTION.fullmatch(value)):
        return value
    exists = Path(value).expanduser().exists()
    if name in LISTS and value[0] + value[-1] == "[]" and not exists:
        return f"[{_quote_each(value[1:-1])}]"
    if "," in value and not exists and (is_sweep or name == "ckpt"):
        return _quote_each(value)
    return _quote(value)


def _quote_each(values: str) -> str:
    """Quotes values that commas separate; the comma of a quoted value separates nothing."""
    parts = re.findall(rf"\s*(?:{QUOTED.pattern})\s*(?=,|$)|[^,]+", values, re.DOTALL)
    return ",".join(_quote(part) for part in parts if part.strip())


def _quote(value: str) -> str:
    value = value.strip()
    return value if QUOTED.fullmatch(value) else QuotedString(value, Quote.single).with_quotes()


def repeated(arguments: list[str], conf: Path) -> list[str]:
    """The command line, completed where it repeats a run: --config-path RUN --config-name config.

    RUN/config.yaml has every option of the run but those of Hydra itself, which are taken from the file ``conf``: above
    all that the run gets a folder of its own.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-path", "-cp", type=Path)
    parser.add_argument("--config-name", "-cn", default="config")
    given, rest = parser.parse_known_args(arguments)
    name = given.config_name.removesuffix(".yaml")
    file = given.config_path and given.config_path.absolute() / f"{name}.yaml"
    if not file or not file.is_file() or "defaults" in OmegaConf.load(file):
        return arguments
    own: Any = OmegaConf.to_container(OmegaConf.load(conf).hydra)
    values = {"run.dir": own["run"]["dir"], "sweep.dir": own["sweep"]["dir"], "sweep.subdir": own["sweep"]["subdir"]}
    options = [
        *("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.output_subdir=null"),
        f"hydra.sweeper._target_={own['sweeper']['_target_']}",
        *(f"hydra.{name}={QuotedString(value, Quote.single).with_quotes()}" for name, value in values.items()),
    ]
    flags = ["--config-path", str(file.parent), "--config-name", name]
    return [*flags, *(option for option in options if option not in rest), *rest]

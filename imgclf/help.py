"""What the configuration files tell: --help, and what to type instead of a wrong name; arguments of small commands."""

import difflib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from imgclf.runs.resume import flat

CONF = next(folder / "conf" for folder in Path(__file__).parents if (folder / "conf" / "train.yaml").is_file())
SYNONYMS = {  # what people type, and the last part of the name of the option that they mean
    "epochs": "max_epochs",
    "learning_rate": "lr",
    "bs": "batch_size",
    "batch": "batch_size",
    "device": "accelerator",
    "gpu": "accelerator",
    "gpus": "devices",
    "workers": "num_workers",
    "checkpoint": "ckpt",
    "size": "image_size",
}
NARROW, WIDE = 80, 120  # characters of a line: the terminal's, within these limits
COLUMN = 0.35  # where comments begin, as a share of the line
LINE = re.compile(r"(?P<indent> *)(?P<dash>- )?(?P<name>[\w. /]+):(?P<value>[^#]*?)(?:\s*# (?P<comment>.*))?")
HYDRA = {  # what Hydra adds to both commands
    "hydra.run.dir=DIR": "the folder of the run, instead of one with the time below outputs/",
    "hydra.sweep.dir=DIR": "the folder of several runs",
    "-m": "several runs: a comma separates the values of an option, as in seed=1,2,3",
    "--cfg job": "shows the configuration and runs nothing",
}
NO_OPTIONS = ("experiment", "sweep", "launcher", "logger")  # groups that set the options of other groups
INTERNAL = re.compile(r"defaults\b.*|hydra\b.*|.*(_[a-z]+_|_dir|dirpath|filename|_end|_counter|\.mode)")


class Option(NamedTuple):
    name: str
    default: str
    comment: str


def help_text(conf: Path, name: str, usage: str) -> str:
    """What ``python NAME.py --help`` prints: ``usage``, then what ``conf`` holds beside the main file NAME.yaml."""
    main = (conf / f"{name}.yaml").read_text()
    entries = [line for line in map(LINE.fullmatch, main.splitlines()) if line and line["dash"]]
    groups = {entry["name"]: entry["comment"] for entry in entries if (conf / entry["name"]).is_dir()}
    lines = [usage, "", "GROUPS (group=choice)"]
    for group, comment in groups.items():
        choices = " ".join(sorted(file.stem for file in (conf / group).glob("*.yaml")))
        lines += _entry(group, f"{choices}: {comment}" if comment else choices, column=16)
    lines += ["", "OPTIONS (option=value)"]
    options = {option.name: option for option in _options(main) if not option.name.startswith(("defaults", "hydra"))}
    for group in groups:
        if group not in NO_OPTIONS:
            for option in _group_options(conf / group):
                options.setdefault(f"{group}.{option.name}", option)
    for full_name, option in options.items():
        lines += _entry(f"{full_name}={option.default}", option.comment)
    lines += ["", "HYDRA"]
    for option, comment in HYDRA.items():
        lines += _entry(option, comment)
    return "\n".join(lines)


def _group_options(folder: Path) -> Iterator[Option]:
    """The options of all choices of a group; one that not all choices have says which have it."""
    texts = {file.stem: file.read_text() for file in folder.glob("*.yaml")}
    bases = {choice for choice, text in texts.items() if "defaults:" not in text}  # choices that inherit nothing
    found: dict[str, dict[str, Option]] = {}  # of each option, what each choice says about it
    for choice in sorted(texts, key=lambda choice: (choice not in bases, choice)):
        for option in _options(texts[choice]):
            if not INTERNAL.fullmatch(option.name):
                found.setdefault(option.name, {})[choice] = option
    for name, said in found.items():
        comment = next((option.comment for option in said.values() if option.comment), "")
        own = [choice for choice in said if choice in bases] or list(said)
        if len(own) < min(len(bases), 4):
            comment = ": ".join(filter(None, [", ".join(own), comment]))
        yield Option(name, next(iter(said.values())).default, comment)


def _options(text: str) -> Iterator[Option]:
    """The leaves of a configuration file, with dotted names."""
    path: list[tuple[int, str]] = []
    lines = [line for line in map(LINE.fullmatch, text.splitlines()) if line and not line["dash"]]
    for line, following in zip(lines, [*lines[1:], None], strict=True):
        depth = len(line["indent"])
        path = [(indent, name) for indent, name in path if indent < depth] + [(depth, line["name"])]
        if following is None or len(following["indent"]) <= depth:
            yield Option(".".join(name for _, name in path), line["value"].strip(), line["comment"] or "")


def _entry(name: str, comment: str, column: int | None = None) -> list[str]:
    """A name and its comment beside it, in as many lines as it needs."""
    width = min(WIDE, max(NARROW, get_terminal_size((WIDE, 0)).columns))
    column = column or int(COLUMN * width)
    first, *rest = wrap(comment, width - column) or [""]
    if len(name) + 3 > column and comment:
        return [f"  {name}", *(" " * column + line for line in (first, *rest))]
    return [f"  {name:<{column - 2}}{first}".rstrip(), *(" " * column + line for line in rest)]


def key_values(words: Sequence[str], usage: str, **defaults: str) -> dict[str, str] | None:
    """The arguments of a small command, ``name=value`` each; None after printing ``usage`` for --help.

    A default of "" means that the argument must be given. A ValueError names the word that is unknown or missing.
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


def unknown_option(error: Any) -> str:
    """OmegaConf's error about an unknown key, as a line that names the nearest option or the choice that has it."""
    group, _, name = error.full_key.rpartition(".")
    known: Any = OmegaConf.to_container(error.parent_node) if error.parent_node is not None else {}
    known.pop("hydra", None)
    names = sorted(key for key in map(str, known) if not key.startswith("_"))
    same = [option for option in flat(known) if option.rpartition(".")[2] == SYNONYMS.get(name, name)]
    if not group and same:
        return f"unknown option {name}: did you mean {same[0]}?"
    folder = group or "sweep"  # a choice of sweep adds options at the top level
    files: dict[str, Any] = {file.stem: OmegaConf.load(file) for file in sorted((CONF / folder).glob("*.yaml"))}
    own = {choice for choice, options in files.items() if name in options}
    inherit = {choice for choice, options in files.items() if own & set(map(str, options.get("defaults", [])))}
    hint = ""
    if choices := sorted(own | inherit):
        hint = f"it comes with {folder}={' or '.join(choices)}; "
    elif not group and (found := _other_groups_with(SYNONYMS.get(name, name))):
        return f"unknown option {name}: {found}"
    elif close := difflib.get_close_matches(name, names, n=1):
        hint = f"did you mean {error.full_key.removesuffix(name)}{close[0]}? "
    return f"unknown option {error.full_key}: {hint}{group or 'the configuration'} has {', '.join(names)}"


def unknown_choice(group: str, choice: str) -> str:
    """What to type instead of a choice that a group does not have."""
    given, choices = f"{group}={choice}", sorted(file.stem for file in (CONF / group).glob("*.yaml"))
    if group == "data" and (len(Path(choice).parts) > 1 or Path(choice).is_dir()):
        return f"{given}: for a folder of images type data=image_folder data.root={choice}"
    if group == "model":
        from torchvision.models import list_models  # lazy: it takes a second

        if choice in list_models():
            return f"{given}: for a network of torchvision type model=torchvision model.name={choice}"
    close = difflib.get_close_matches(choice, choices, n=1)
    hint = f"did you mean {group}={close[0]}? " if close else ""
    return f"{given}: {hint}choose one of {', '.join(choices)}" if choices else f"{group}: no such group of options"


def _other_groups_with(name: str) -> str:
    """Which choices have an option, such as "data.image_size comes with data=image_folder"; empty if none has it."""
    found: dict[str, list[str]] = {}
    for file in sorted(CONF.glob("*/*.yaml")):
        if file.parent.name not in ("experiment", "launcher", "sweep"):  # these set the options of other groups
            for option in flat(OmegaConf.to_container(OmegaConf.load(file), resolve=False)):
                if option.rpartition(".")[2] == name:
                    found.setdefault(f"{file.parent.name}.{option}", []).append(file.stem)
    return ", ".join(f"{option} comes with {option.partition('.')[0]}={' or '.join(found[option])}" for option in found)

"""Errors in one line: what, where and what to do instead, in the names of the options that were typed."""

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from imgclf.core.text import CONTROL
from imgclf.runs.resume import flat

CONF = next(folder / "conf" for folder in Path(__file__).parents if (folder / "conf" / "train.yaml").is_file())
SWEEP_EXTRA = re.compile("hydra/(sweeper/optuna|launcher/(joblib|submitit_local|submitit_slurm|ray))")
SYNONYMS = {  # what people type, and the last part of the option that they mean
    **{
        "epochs": "max_epochs",
        "learning_rate": "lr",
        "bs": "batch_size",
        "batch": "batch_size",
        "device": "accelerator",
    },
    **{"gpu": "accelerator", "gpus": "devices", "workers": "num_workers", "size": "image_size"},
}
OPTIONS_ARE = "options are written name=value, such as trainer.max_epochs=3"
ARGUMENT = re.compile(r"(?<![\w./=-])(?P<name>[A-Za-z]\w*)=(?P<value>[^\s:;,)]*)")  # in an error message of the library
LONGEST = 4000  # characters of a message


def one_line(error: Exception) -> str:
    """What, where and what to do instead, without a line break; arguments are called by their options' full names."""
    key_error = next((e for e in _chain(error) if isinstance(e, OmegaConfBaseException) and e.full_key), None)
    options = next((e.options for e in _chain(error) if hasattr(e, "options")), {})  # pyrefly: ignore[missing-attribute]
    if key_error is not None and "is not in struct" in str(key_error):
        text = unknown_option(key_error)
    elif isinstance(error, OverrideParseException):
        how = "quote unusual characters for Hydra too, as in 'ckpt=\"a=b.ckpt\"'"
        text = f"cannot read {error.override}: {how if '=' in error.override else OPTIONS_ARE}"
    elif isinstance(error, MissingConfigException) and SWEEP_EXTRA.fullmatch(error.missing_cfg_file or ""):
        text = f"{error.missing_cfg_file} is not installed: pip install -e '.[sweep]'"
    elif isinstance(error, MissingConfigException) and (group := (error.missing_cfg_file or "").partition("/"))[1]:
        text = unknown_choice(group[0], group[2])
    elif isinstance(error, MemoryError) or "allocate memory" in str(error):
        text = f"not enough memory: a smaller network, image or data.batch_size takes less ({str(error)[:200]})"
    elif isinstance(error, OSError) and error.filename and error.strerror:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, (ValueError, OSError, ArithmeticError, HydraException, OmegaConfBaseException)):
        said = next((str(e) for e in _chain(error) if str(e)), type(error).__name__)  # Hydra's own may say nothing
        text = full_names(said.partition("Config search path:")[0], options)
    else:
        notes = "; ".join([*getattr(error, "__notes__", ()), "HYDRA_FULL_ERROR=1 shows where"])
        text = f"{type(error).__name__}: {full_names(str(error)[:300], options)} ({notes})"
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], " ".join(text.split()))[:LONGEST]


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen = set()  # an error that a thread left behind is raised again while it is handled: a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def full_names(message: str, options: Mapping[str, Any]) -> str:
    """An error message of the library, such as "val_fraction=2: ...", with the full names of its arguments' options.

    An argument is the one of ``options`` (see ``flat``) whose last part it is; of several, the one of the same value.
    """

    def full(found: re.Match[str]) -> str:
        same = [option for option in options if option.rpartition(".")[2] == found["name"]]
        if len(same) > 1:
            same = [option for option in same if str(options[option]) == found["value"]]
        return f"{same[0]}={found['value']}" if len(same) == 1 else found[0]

    return ARGUMENT.sub(full, message)


def unknown_option(error: Any) -> str:
    """OmegaConf's error about an unknown key, as a line that names the nearest option or the choice that has it."""
    group, _, name = error.full_key.rpartition(".")
    known: Any = OmegaConf.to_container(error.parent_node) if error.parent_node is not None else {}
    known.pop("hydra", None)
    names = sorted(key for key in map(str, known) if not key.startswith("_"))
    same = [option for option in flat(known) if option.rpartition(".")[2] == SYNONYMS.get(name, name)]
    if not group and same:
        return f"unknown option {name}: did you mean {same[0]}?"
    folder = group or "sweep"  # whose choices add options of their own to the configuration
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
        if file.parent.name not in ("experiment", "launcher", "sweep"):  # which set the options of others
            for option in flat(OmegaConf.to_container(OmegaConf.load(file), resolve=False)):
                if option.rpartition(".")[2] == name:
                    found.setdefault(f"{file.parent.name}.{option}", []).append(file.stem)
    return ", ".join(f"{option} comes with {option.partition('.')[0]}={' or '.join(found[option])}" for option in found)

"""Self-contained checkpoints: written whole or not at all, read without executing anything of theirs."""

import contextlib
import importlib
import inspect
import os
import pkgutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from imgclf.checkpoints.files import METADATA_KEY, read_checkpoint
from imgclf.checkpoints.untrusted import (
    check_configuration,
    class_names,
)
from imgclf.core.names import SPLITS, VERSION

PAPER = ("back-white", "back-lined", "back-squared")  # variations of dark ink
FILES = "imgclf.data.image_folder.ImageFolder"  # data that are read as ``predict`` reads files


def rebuild_config(thing: Any) -> dict[str, Any]:
    """Class and arguments of a Network or data module, as plain types that ``instantiate`` rebuilds it from."""
    from imgclf.data.datamodule import ON_THIS_MACHINE

    left_out = ("augmentation", *ON_THIS_MACHINE)
    arguments = {name: value for name, value in thing.init_args.items() if name not in left_out}
    return {"_target_": f"{type(thing).__module__}.{type(thing).__qualname__}", **_plain(arguments)}


def build_metadata(classifier: Any, data: Any = None) -> dict[str, Any]:
    """What a checkpoint of ``classifier`` says of itself, in plain types: everything needed to use it elsewhere.

    ``data`` is left out unless it is one of imgclf's data modules.
    """
    from imgclf.data.datamodule import ImageDataModule

    return {
        "network": rebuild_config(classifier.network),
        "class_names": class_names(classifier.class_names),
        "normalize": classifier.normalize,
        "optimizer": getattr(classifier.optimizer, "func", classifier.optimizer).__name__,
        "data": rebuild_config(data) if isinstance(data, ImageDataModule) else None,
        "fingerprints": data.fingerprints() if isinstance(data, ImageDataModule) else {},
        "versions": {"imgclf": VERSION, **{name: version(name) for name in ("torch", "lightning")}},
    }


def read_data_config(path: str | Path) -> dict[str, Any]:
    """The configuration of the data a checkpoint was trained on, for ``instantiate``; empty if it does not say.

    How data are read is this machine's affair: ``data_dir`` and ``cache_dir`` are left to be resolved, and
    ``num_workers`` is 0. Places that the file itself names are another's affair: where one exists here, outside the
    working folder, it is "???", to be typed, unless the checkpoint lies in a run folder, whose config.yaml says it too.

    Raises:
        FileNotFoundError, ValueError: as ``read`` does; and for data that are not one of imgclf's data modules.
    """
    from imgclf.data.datamodule import ON_THIS_MACHINE

    config = read_checkpoint(path)[METADATA_KEY].get("data") or {}
    check_configuration(config, path)
    target = config.get("_target_")
    if config and target not in datamodule_classes():
        raise ValueError(f"ckpt={path}: refused: it names {target} as its data")
    known = _arguments(target)
    if not (Path(path).absolute().parent.parent / "config.yaml").is_file():
        config = {name: "???" if _elsewhere(value) else value for name, value in config.items()}
    here = {name: f"${{{name}}}" for name in ON_THIS_MACHINE if name in known}
    return {**config, **here, **({"num_workers": 0} if config else {})}


def changed_splits(card: dict[str, Any], data: Any) -> list[str]:
    """The splits of ``data`` whose images, labels or classes are others than those a checkpoint was trained with.

    Those that are not there, or that its ``card`` (``describe``) does not know, are not named.
    """
    known, changed = card.get("fingerprints"), []
    for split in SPLITS:
        with contextlib.suppress(FileNotFoundError):
            if isinstance(known, dict) and split in known and known[split] != data.fingerprint(split):
                changed.append(split)
    return changed


def network_classes() -> tuple[str, ...]:
    """The only targets a checkpoint may name as its network: every Network class defined in imgclf.models."""
    return _subclasses("imgclf.models", "imgclf.models.network.Network")


def datamodule_classes() -> tuple[str, ...]:
    """The only targets a checkpoint may name as its data: every data module defined in imgclf.data."""
    return _subclasses("imgclf.data", "imgclf.data.datamodule.ImageDataModule")


def _subclasses(package: str, base: str) -> tuple[str, ...]:
    module, _, name = base.rpartition(".")
    base_class = getattr(importlib.import_module(module), name)
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f"{package}.{found.name}")
    classes, queue = [], [base_class]
    while queue:
        for subclass in queue.pop().__subclasses__():
            queue.append(subclass)
            if subclass.__module__.startswith(f"{package}."):
                classes.append(f"{subclass.__module__}.{subclass.__qualname__}")
    return tuple(sorted(set(classes)))


def _arguments(target: str | None) -> set[str]:
    if not target:
        return set()
    module, _, name = target.rpartition(".")
    return set(inspect.signature(getattr(importlib.import_module(module), name).__init__).parameters)


def _elsewhere(value: Any) -> bool:
    """Whether it is a path that exists here and leaves the working folder."""
    if not isinstance(value, str):
        return False
    try:
        path = Path(value).expanduser()
        return (path.is_absolute() or ".." in path.parts) and path.exists()
    except (OSError, RuntimeError, ValueError):  # too long, nobody's home, a null character
        return False


def _plain(value: Any) -> Any:
    """Containers to dict and list, leaving only what weights_only=True loads."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} cannot be kept in a checkpoint: use numbers, strings and lists")

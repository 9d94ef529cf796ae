"""What a checkpoint says of itself: how to rebuild its network, its preprocessing and its data."""

import contextlib
import importlib
import inspect
import os
import pkgutil
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

import imgclf.data
import imgclf.models
from imgclf.checkpoints.files import METADATA_KEY, read_checkpoint
from imgclf.checkpoints.untrusted import check_class_names, check_config
from imgclf.core.names import SPLITS, VERSION
from imgclf.core.rebuild import Rebuildable
from imgclf.data.datamodule import ImageDataModule
from imgclf.models.network import Network

if TYPE_CHECKING:
    from imgclf.models.classifier import Classifier

LOCAL_FOLDERS = ("data_dir", "cache_dir")  # these arguments say where this machine keeps files
LEFT_OUT = ("augmentation", *LOCAL_FOLDERS)  # arguments of data modules that a checkpoint does not keep


def build_metadata(classifier: "Classifier", data: Any = None) -> dict[str, Any]:
    """Describes a classifier in plain types, with everything needed to rebuild it on another machine.

    Args:
        classifier: trained or not.
        data: what it is trained on; it is not described unless it is an ``ImageDataModule``.

    Returns:
        network, class_names, normalize, optimizer (its name), preprocessing (how an image file becomes an input), data,
        fingerprints (split to hash) and versions.
    """
    known_data = data if isinstance(data, ImageDataModule) else None
    image_shape = list(classifier.network.init_args["image_shape"])
    default = {"image_shape": image_shape, "reader": "auto", "polarity": "light_on_dark"}
    return {
        "network": rebuild_config(classifier.network),
        "class_names": check_class_names(list(classifier.class_names)),
        "normalize": classifier.normalize,
        "optimizer": getattr(classifier.optimizer, "func", classifier.optimizer).__name__,
        "preprocessing": known_data.preprocessing() if known_data else default,
        "data": rebuild_config(known_data) if known_data else None,
        "fingerprints": known_data.fingerprints() if known_data else {},
        "versions": {"imgclf": VERSION, **{name: version(name) for name in ("torch", "lightning")}},
    }


def rebuild_config(thing: Rebuildable) -> dict[str, Any]:
    """The class and the arguments of a network or data module, in plain types, for Hydra's ``instantiate``.

    Raises:
        TypeError: an argument is neither a number, a string nor a list or dictionary of them.

    Example:
        >>> rebuild_config(MLP(hidden=[16]))
        {'_target_': 'imgclf.models.mlp.MLP', 'image_shape': [1, 28, 28], ..., 'hidden': [16], 'dropout': 0.0}
    """
    arguments = {name: value for name, value in thing.init_args.items() if name not in LEFT_OUT}
    return {"_target_": _full_name(type(thing)), **_plain(arguments)}


def read_data_config(path: str | Path) -> dict[str, Any]:
    """The configuration of the data that a checkpoint was trained on, for Hydra's ``instantiate``.

    ``data_dir`` and ``cache_dir`` are left to be resolved here, and ``num_workers`` is 0. The checkpoint may name other
    folders of this machine, and a stranger should not choose what is read. A path outside the working folder that
    exists here is therefore replaced by "???", to be typed, unless the checkpoint lies in a run folder, whose
    config.yaml says the same.

    Returns:
        The configuration; empty if the checkpoint does not describe its data.

    Raises:
        FileNotFoundError, ValueError: as ``read_checkpoint`` does.
        ValueError: the file names another class than a data module of imgclf.
    """
    config = read_checkpoint(path)[METADATA_KEY].get("data") or {}
    try:
        check_config(config)
        if config and config.get("_target_") not in _datamodules():
            raise ValueError(f"it names {config.get('_target_')} as its data")
    except ValueError as error:
        raise ValueError(f"{path}: refused: {error}") from error
    if not config:
        return {}
    known = inspect.signature(_datamodules()[config["_target_"]].__init__).parameters
    if not (Path(path).absolute().parent.parent / "config.yaml").is_file():
        config = {name: "???" if _is_outside_path(value) else value for name, value in config.items()}
    local = {name: f"${{{name}}}" for name in LOCAL_FOLDERS if name in known}
    return {**config, **local, "num_workers": 0}


def changed_splits(metadata: dict[str, Any], data: ImageDataModule) -> list[str]:
    """The splits of ``data`` whose images, labels or class names differ from those that a checkpoint was trained on.

    Splits that ``data`` does not have, and splits without a fingerprint in ``metadata``, are left out.
    """
    fingerprints = metadata.get("fingerprints")
    changed = []
    for split in SPLITS:
        with contextlib.suppress(FileNotFoundError):
            if isinstance(fingerprints, dict) and split in fingerprints:
                changed += [split] if fingerprints[split] != data.fingerprint(split) else []
    return changed


def network_classes() -> tuple[str, ...]:
    """The only classes that a checkpoint may name as its network: every Network defined in imgclf.models."""
    return tuple(sorted(_subclasses(imgclf.models, Network)))


def datamodule_classes() -> tuple[str, ...]:
    """The only classes that a checkpoint may name as its data: every ImageDataModule defined in imgclf.data."""
    return tuple(sorted(_datamodules()))


def _datamodules() -> dict[str, type]:
    return _subclasses(imgclf.data, ImageDataModule)


def _subclasses(package: ModuleType, base: type) -> dict[str, type]:
    """Full name to class, of the subclasses of ``base`` that the modules of a package define."""
    names = [f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)]
    values = [value for name in names for value in vars(importlib.import_module(name)).values()]
    classes = [value for value in values if isinstance(value, type) and issubclass(value, base) and value is not base]
    return {_full_name(kind): kind for kind in classes if kind.__module__ in names}


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_outside_path(value: Any) -> bool:
    """Whether ``value`` is a path that exists on this machine, outside the working folder."""
    if not isinstance(value, str):
        return False
    try:
        path = Path(value).expanduser()
        return (path.is_absolute() or ".." in path.parts) and path.exists()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown user's home, or a null character
        return False


def _plain(value: Any) -> Any:
    """Turns containers into dict and list, NumPy numbers and paths into Python's own types."""
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

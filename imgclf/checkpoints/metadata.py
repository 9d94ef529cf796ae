"""What a checkpoint says of itself: how to rebuild its network, its preprocessing and its data."""

import contextlib
import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from hydra.utils import instantiate
from pydantic_core import to_jsonable_python

import imgclf.data
import imgclf.models
from imgclf.checkpoints.files import read_metadata
from imgclf.checkpoints.untrusted import check_class_names, check_config
from imgclf.core.names import SPLITS, VERSION
from imgclf.core.rebuild import Rebuildable
from imgclf.data.datamodule import PLAIN_READING, ImageDataModule
from imgclf.models.classifier import Classifier
from imgclf.models.network import Network

LOCAL_FOLDERS = ("data_dir", "cache_dir")  # these arguments say where files are, so no checkpoint keeps them


def build_metadata(classifier: Classifier, data: Any = None) -> dict[str, Any]:
    """Describes a classifier in plain types, with everything needed to rebuild it on another machine.

    ``preprocessing`` is how an image file becomes an input, ``fingerprints`` has a hash for each split. The data are
    described only if they are an ``ImageDataModule``.
    """
    known_data = data if isinstance(data, ImageDataModule) else None
    network = rebuild_config(classifier.network)
    default = {**PLAIN_READING, "image_shape": network["image_shape"]}
    return {
        "network": network,
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

    Augmentation and the folders of this machine are left out.

    Raises:
        TypeError: another argument is neither a number, a string, a path nor a list or dictionary of them.
    """
    left_out = ("augmentation", *LOCAL_FOLDERS)
    arguments = {name: value for name, value in thing.init_args.items() if name not in left_out}
    kind = type(thing)
    return {"_target_": f"{kind.__module__}.{kind.__qualname__}", **to_jsonable_python(arguments, fallback=_number)}


def read_data_config(path: str | Path) -> dict[str, Any]:
    """The configuration of the data that a checkpoint was trained on, for Hydra's ``instantiate``.

    It is empty if the checkpoint does not describe its data. ``data_dir`` and ``cache_dir`` are left to be resolved
    here, and ``num_workers`` is 0. A stranger should not choose what is read: a path outside the working folder that
    exists here is replaced by "???", to be typed, unless the checkpoint lies in a run folder, whose config.yaml says
    the same.

    Raises:
        FileNotFoundError, ValueError: as ``read_checkpoint`` does, or the data are no data module of imgclf.
    """
    config = read_metadata(path).get("data")
    if not config:
        return {}
    known = _subclasses(imgclf.data, ImageDataModule)
    try:
        target = check_config(config).get("_target_")
        if target not in known:
            raise ValueError(f"it names {target} as its data")
    except ValueError as error:
        raise ValueError(f"{path}: refused: {error}") from error
    if not (Path(path).absolute().parent.parent / "config.yaml").is_file():
        config = {name: "???" if _is_outside_path(value) else value for name, value in config.items()}
    parameters = inspect.signature(known[target].__init__).parameters
    local = {name: f"${{{name}}}" for name in LOCAL_FOLDERS if name in parameters}
    return {**config, **local, "num_workers": 0}


def changed_splits(metadata: dict[str, Any], data: ImageDataModule) -> list[str]:
    """The splits of ``data`` whose images, labels or class names differ from those that a checkpoint was trained on.

    Splits that ``data`` does not have, and splits without a fingerprint in ``metadata``, are left out.
    """
    known = metadata.get("fingerprints")
    if not isinstance(known, dict):
        return []
    changed = []
    for split in SPLITS:
        with contextlib.suppress(FileNotFoundError):
            if split in known and known[split] != data.fingerprint(split):
                changed.append(split)
    return changed


def network_classes() -> tuple[str, ...]:
    """The only classes that a checkpoint may name as its network: every Network defined in imgclf.models."""
    return tuple(sorted(_subclasses(imgclf.models, Network)))


def datamodule_classes() -> tuple[str, ...]:
    """The only classes that a checkpoint may name as its data: every ImageDataModule defined in imgclf.data."""
    return tuple(sorted(_subclasses(imgclf.data, ImageDataModule)))


def build_data(config: Mapping[str, Any]) -> ImageDataModule:
    """Builds and prepares a data module from its configuration in plain types; only those of imgclf are allowed."""
    data = instantiate(dict(config), _convert_="all", _execution_whitelist_=datamodule_classes())
    data.prepare_data()
    return data


def _subclasses(package: ModuleType, base: type) -> dict[str, type]:
    """Full name to class, of the subclasses of ``base`` that the modules of a package define."""
    names = [f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)]
    values = [value for name in names for value in vars(importlib.import_module(name)).values()]
    classes = [value for value in values if isinstance(value, type) and issubclass(value, base) and value is not base]
    return {f"{kind.__module__}.{kind.__qualname__}": kind for kind in classes if kind.__module__ in names}


def _is_outside_path(value: Any) -> bool:
    """Whether ``value`` is a path that exists on this machine, outside the working folder."""
    try:
        path = Path(value).expanduser()
        return (path.is_absolute() or ".." in path.parts) and path.exists()
    except (OSError, RuntimeError, TypeError, ValueError):  # too long, an unknown user, no text, a null character
        return False


def _number(value: Any) -> Any:
    """Python's own number for a NumPy number, the only other type that becomes plain."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be kept in a checkpoint: use numbers, strings and lists")

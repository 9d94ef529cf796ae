"""Self-contained checkpoints: written whole or not at all, read without executing anything of theirs."""

import contextlib
import importlib
import inspect
import os
import pkgutil
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import execution_whitelist, instantiate
from lightning.fabric.plugins.io import TorchCheckpointIO

from imgclf import __version__
from imgclf.options import SPLITS
from imgclf.untrusted import Budget, check_archive, check_configuration, check_tensors, class_names, image_shape

PAPER = ("back-white", "back-lined", "back-squared")  # variations of dark ink
FILES = "imgclf.data.folder.ImageFolder"  # data that are read as ``predict`` reads files
KEY = "imgclf"  # where a checkpoint describes itself, beside Lightning's own keys


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the final name and moves, so that a killed run never leaves half a checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        path = Path(path)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(exist_ok=True)  # not a run folder that was removed
            with unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        except (OSError, RuntimeError) as error:  # torch's own, of a write that failed
            reason = next((e.strerror for e in (error, error.__context__) if isinstance(e, OSError)), error)
            raise OSError(f"{path} cannot be written: {reason}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    def load_checkpoint(self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True) -> dict:
        return read(path)


def config_of(thing: Any) -> dict[str, Any]:
    """Class and arguments of a Network or data module, as plain types that ``instantiate`` rebuilds it from."""
    return {"_target_": f"{type(thing).__module__}.{type(thing).__qualname__}", **_plain(dict(thing.hparams))}


def describe(classifier: Any, data: Any = None) -> dict[str, Any]:
    """What a checkpoint of ``classifier`` says of itself, in plain types: everything needed to use it elsewhere.

    ``data`` is left out unless it is one of imgclf's data modules.
    """
    from imgclf.data.base import ImageDataModule

    return {
        "network": config_of(classifier.network),
        "class_names": class_names(classifier.class_names),
        "normalize": classifier.normalize,
        "optimizer": getattr(classifier.optimizer, "func", classifier.optimizer).__name__,
        "data": config_of(data) if isinstance(data, ImageDataModule) else None,
        "fingerprints": data.fingerprints() if isinstance(data, ImageDataModule) else {},
        "versions": {"imgclf": __version__, **{name: version(name) for name in ("torch", "lightning")}},
    }


def read(path: str | Path) -> dict[str, Any]:
    """The checkpoint's tensors and plain values, on the CPU; nothing in the file is executed.

    It takes about the file's size of memory, whatever the file declares.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not a checkpoint of imgclf.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"ckpt={path}: a folder; name a file, such as ckpt={path}/checkpoints/best.ckpt")
    if not path.is_file():
        raise FileNotFoundError(f"ckpt={path}: no such file; a run's checkpoints are in its checkpoints/ folder")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"ckpt={path}: truncated or not a PyTorch checkpoint")
    try:
        check_archive(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from EOFError to UnpicklingError
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"ckpt={path}: refused, it is damaged or holds more than tensors ({reason})") from error
    ours = isinstance(checkpoint, dict) and {KEY, "state_dict"} <= checkpoint.keys()
    if not (ours and isinstance(checkpoint[KEY], dict)):
        raise ValueError(f"ckpt={path}: not a checkpoint of imgclf (train one with python train.py)")
    return checkpoint


def load(path: str | Path, device: str | torch.device = "cpu"):
    """Rebuilds a trained classifier from its checkpoint alone.

    Args:
        path: a .ckpt file of a run.
        device: where to put it, such as "cpu" or "cuda".

    Returns:
        imgclf.predict.Predictor

    Raises:
        FileNotFoundError, ValueError: as ``read`` does; and for a network that is not one of imgclf's own.
    """
    from imgclf.models.classifier import NORMALIZATIONS, Classifier, num_logits
    from imgclf.predict import Predictor

    checkpoint = read(path)
    card, weights = checkpoint[KEY], checkpoint["state_dict"]
    config, data = card.get("network"), card.get("data") or {}
    check_configuration(config, path)
    check_configuration(data, path)
    if config.get("weights"):
        raise ValueError(f"ckpt={path}: refused: its network would fetch weights ({config['weights']})")
    try:
        shape, names = image_shape(config["image_shape"]), class_names(card["class_names"])
        if config["num_classes"] != num_logits(names) or card["normalize"] not in NORMALIZATIONS:
            raise ValueError(f"{len(names)} classes, {config['num_classes']} logits, or unknown normalize")
        check_tensors(weights, shape[0])
        with Budget(os.path.getsize(path)):
            only = execution_whitelist(networks(), reset=True)  # not what train.py may instantiate besides
            network = instantiate(config, _convert_="all", _execution_whitelist_=only)
        statistics = (weights[name].flatten() for name in ("mean", "std"))
        classifier = Classifier(network, names, *statistics, normalize=card["normalize"])
        for name, own in classifier.state_dict().items():
            if not torch.can_cast(weights[name].dtype, own.dtype):
                raise ValueError(f"{name} is of {weights[name].dtype}")
        classifier.load_state_dict(weights)
    except InstantiationException as error:
        raise ValueError(f"ckpt={path}: refused: {' '.join(str(error).split())}") from error
    except Exception as error:  # networks raise anything when their arguments are nonsense
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"ckpt={path}: its description and its weights do not fit together ({reason})") from error
    paper, files = str(data.get("variation")).endswith(PAPER), data.get("_target_") == FILES
    return Predictor(classifier.to(device), shape, dark_ink=paper, scaled=files)


def data_config(path: str | Path) -> dict[str, Any]:
    """The configuration of the data a checkpoint was trained on, for ``instantiate``; empty if it does not say.

    How data are read is this machine's affair: ``data_dir`` and ``cache_dir`` are left to be resolved, and
    ``num_workers`` is 0. Places that the file itself names are another's affair: where one exists here, outside the
    working folder, it is "???", to be typed, unless the checkpoint lies in a run folder, whose config.yaml says it too.

    Raises:
        FileNotFoundError, ValueError: as ``read`` does; and for data that are not one of imgclf's data modules.
    """
    from imgclf.data.base import ON_THIS_MACHINE

    config = read(path)[KEY].get("data") or {}
    check_configuration(config, path)
    target = config.get("_target_")
    if config and target not in data_modules():
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


def networks() -> tuple[str, ...]:
    """The only targets a checkpoint may name as its network: every Network class defined in imgclf.models."""
    return _subclasses("imgclf.models", "imgclf.models.network.Network")


def data_modules() -> tuple[str, ...]:
    """The only targets a checkpoint may name as its data: every data module defined in imgclf.data."""
    return _subclasses("imgclf.data", "imgclf.data.base.ImageDataModule")


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

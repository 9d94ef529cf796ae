"""Self-contained checkpoints: written whole or not at all, read without executing anything of theirs."""

import contextlib
import importlib
import inspect
import math
import os
import pickletools
import pkgutil
import re
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.errors import InstantiationException
from hydra.utils import execution_whitelist, instantiate
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from imgclf import __version__
from imgclf.cli import CONTROL
from imgclf.options import SPLITS

PAPER = ("back-white", "back-lined", "back-squared")  # variations of dark ink
FILES = "imgclf.data.folder.ImageFolder"  # data that are read as ``predict`` reads files
KEY = "imgclf"  # where a checkpoint describes itself, beside Lightning's own keys

# What a file may ask for, so that a stranger's takes no more than its own size promises.
CALLS = re.compile(  # weights_only=True alone also makes bytearrays and tensors of any length that a file declares
    r"torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)|collections OrderedDict|_codecs encode"
)
LARGEST_PICKLE = 2**23  # bytes of everything that is no tensor; a thousand epochs take 2**19
LARGEST_IMAGE = 2**26  # values of image_shape
MOST_VALUES = 10_000  # in a configuration
TENSOR = 100  # bytes that a file takes for a tensor at least, beside its values


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
        "class_names": _names(classifier.class_names),
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
        _check_archive(path)
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
    _refuse_surprises(config, path)
    _refuse_surprises(data, path)
    if config.get("weights"):
        raise ValueError(f"ckpt={path}: refused: its network would fetch weights ({config['weights']})")
    try:
        shape, names = _shape(config["image_shape"]), _names(card["class_names"])
        if config["num_classes"] != num_logits(names) or card["normalize"] not in NORMALIZATIONS:
            raise ValueError(f"{len(names)} classes, {config['num_classes']} logits, or unknown normalize")
        _check_tensors(weights, shape[0])
        with _Budget(os.path.getsize(path)):
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
    _refuse_surprises(config, path)
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


def _check_archive(path: Path) -> None:
    """Raises ValueError unless the file is what torch.save makes of tensors and plain values: nothing compressed,
    nothing called but what puts tensors together."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > os.path.getsize(path):
            raise ValueError("it is compressed")
        for member in members:
            if member.filename.lower().endswith(".pkl"):
                if member.file_size > LARGEST_PICKLE:
                    raise ValueError(f"{member.file_size} bytes that are no tensors")
                for code, argument, _ in pickletools.genops(archive.read(member)):
                    if code.name == "GLOBAL" and not CALLS.fullmatch(str(argument)):
                        raise ValueError(f"it calls {str(argument).replace(' ', '.')}")


def _check_tensors(weights: Any, channels: int) -> None:
    """Raises ValueError unless all are tensors with as many values as they say, the classifier's own ones in range."""
    for name, value in weights.items():
        if not isinstance(value, Tensor) or value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{name} is no tensor, or smaller than it says")
        if value.isnan().any():
            raise ValueError(f"{name} holds NaN")
    for name, low, high in (("mean", -math.inf, math.inf), ("std", 0, math.inf), ("threshold", -1e-6, 1 + 1e-6)):
        if not ((low < weights[name]) & (weights[name] < high)).all():
            raise ValueError(f"{name} is out of range")
        if weights[name].numel() not in (1, channels):
            raise ValueError(f"{name} is of {weights[name].numel()} values for {channels} channels")


class _Budget(TorchDispatchMode):
    """Ends the building of a network that takes more values, or more tensors, than a file of so many bytes can hold;
    before their memory is touched."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.left = size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        new = isinstance(result, Tensor) and not any(isinstance(given, Tensor) for given in args)
        if new and result.device.type == "cpu":
            self.left -= result.numel() + TENSOR
            if self.left < 0:
                raise ValueError("the network is larger than the file")
        return result


def _shape(shape: Any) -> tuple[int, int, int]:
    """Raises ValueError unless it is that of an image: channels, height, width."""
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)):
        raise ValueError(f"image_shape={shape}")
    if math.prod(shape) > LARGEST_IMAGE:
        raise ValueError(f"images of shape {tuple(shape)} are larger than {LARGEST_IMAGE} values")
    return tuple(shape)


def _names(names: Any) -> list[str]:
    """Class names, which go to the terminal and into tables: raises ValueError for what does not belong there."""
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"a class is called by {type(name).__name__}, no string")
        if not 0 < len(name) < 256 or CONTROL.search(name):
            raise ValueError(f"a class is called {name[:50]!r}: give it a name of up to 255 printable characters")
    return list(names)


def _refuse_surprises(config: Any, path: str | Path) -> None:
    """Raises ValueError unless ``config`` is one class with plain arguments: nothing that Hydra acts on."""
    if not isinstance(config, dict) or not isinstance(config.get("_target_", ""), str):
        raise ValueError(f"ckpt={path}: refused: its configuration is no dictionary")
    queue = [(name, value) for name, value in config.items() if name != "_target_"]
    seen = len(queue)
    while queue:
        name, value = queue.pop()
        seen += len(value) if isinstance(value, dict | list | tuple) else 0
        if seen > MOST_VALUES:  # a list may hold itself
            raise ValueError(f"ckpt={path}: refused: its configuration holds more than {MOST_VALUES} values")
        if not isinstance(name, str) or name.startswith("_") or name == "defaults":
            wanted = f" {value}" if name == "_target_" and isinstance(value, str) else ""
            raise ValueError(f"ckpt={path}: refused: its configuration holds {name}{wanted}")
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"ckpt={path}: refused: its configuration holds the interpolation {value}")
        if isinstance(value, dict):
            queue += value.items()
        elif isinstance(value, list | tuple):
            queue += [(name, item) for item in value]
        elif not (value is None or isinstance(value, str | int | float)):
            raise ValueError(f"ckpt={path}: refused: its configuration holds {type(value).__name__} for {name}")


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

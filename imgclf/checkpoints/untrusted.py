"""Checks of a checkpoint from a stranger, who may want it to call a function or to fill the memory.

Every check raises ValueError with the reason; the caller adds the file's path.
"""

import math
import os
import pickletools
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from imgclf.core.text import CONTROL

# torch.load(weights_only=True) alone would also build bytearrays and tensors of any length that a file declares.
ALLOWED_GLOBALS = re.compile(
    r"torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)|collections OrderedDict|_codecs encode"
)
OLD_PICKLES = 5  # they hold a magic number, a version, the system, the tensors, and the names of their storages
MAX_PICKLE_BYTES = 2**23  # for everything that is not a tensor; the record of a thousand epochs takes 2**19
MAX_IMAGE_VALUES = 2**26  # channels * height * width
MAX_CONFIG_VALUES = 10_000
MAX_NAME_LENGTH = 255  # characters of a class name


def check_archive(path: Path) -> None:
    """Checks that a file is not compressed, and that its pickle calls only the functions that put tensors together."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
        if not stored or sum(member.file_size for member in members) > os.path.getsize(path):
            raise ValueError("it is compressed")
        for member in (member for member in members if member.filename.lower().endswith(".pkl")):
            if member.file_size > MAX_PICKLE_BYTES:
                raise ValueError(f"it holds {member.file_size} bytes that are not tensors")
            _check_calls(archive.read(member))


def check_old_format(path: Path) -> None:
    """Checks a file of torch before 1.6, which is no archive but five pickles in a row, as ``check_archive`` does."""
    with path.open("rb") as file:
        for _ in range(OLD_PICKLES):
            _check_calls(file)


def _check_calls(pickled: bytes | BinaryIO) -> None:
    for code, argument, _ in pickletools.genops(pickled):
        if code.name == "GLOBAL" and not ALLOWED_GLOBALS.fullmatch(str(argument)):
            raise ValueError(f"it calls {str(argument).replace(' ', '.')}")


def check_config(config: Any) -> dict[str, Any]:
    """Returns ``config`` if it is a dictionary of one class with plain arguments, without anything else for Hydra."""
    if not isinstance(config, dict) or not isinstance(config.get("_target_", ""), str):
        raise ValueError("its configuration is not a dictionary with one _target_")
    queue = [(name, value) for name, value in config.items() if name != "_target_"]
    count = len(queue)
    while queue:
        name, value = queue.pop()
        count += len(value) if isinstance(value, dict | list | tuple) else 0
        if count > MAX_CONFIG_VALUES:  # a list may even hold itself
            raise ValueError(f"its configuration holds more than {MAX_CONFIG_VALUES} values")
        if not isinstance(name, str) or name.startswith("_") or name == "defaults":
            target = f" {value}" if name == "_target_" and isinstance(value, str) else ""
            raise ValueError(f"its configuration holds {name}{target}")
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"its configuration holds the interpolation {value}")
        if isinstance(value, dict):
            queue += value.items()
        elif isinstance(value, list | tuple):
            queue += [(name, item) for item in value]
        elif not (value is None or isinstance(value, str | int | float)):
            raise ValueError(f"its configuration holds {type(value).__name__} for {name}")
    return config


def check_image_shape(shape: Any) -> tuple[int, int, int]:
    """Checks that ``shape`` lists channels, height and width of an image that fits in memory; returns it as a tuple."""
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(size) is int and size > 0 for size in shape)):
        raise ValueError(f"image_shape={shape} is not a list of channels, height and width")
    if math.prod(shape) > MAX_IMAGE_VALUES:
        raise ValueError(f"images of shape {tuple(shape)} are larger than {MAX_IMAGE_VALUES} values")
    channels, height, width = shape
    return channels, height, width


def check_class_names(names: Any) -> list[str]:
    """Checks class names, which are printed in the terminal and written into tables; returns them as a list."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError("its class names are not a list of strings")
    for name in names:
        if not 0 < len(name) <= MAX_NAME_LENGTH or CONTROL.search(name):
            raise ValueError(f"a class is called {name[:50]!r}: give up to {MAX_NAME_LENGTH} printable characters")
    return list(names)


def check_tensors(weights: Any, file_bytes: int) -> None:
    """Checks a state_dict: a dictionary of real tensors without NaN, of no more values than the file has bytes."""
    if not isinstance(weights, Mapping):
        raise ValueError("its weights are not a dictionary of tensors")
    for name, value in weights.items():
        if not isinstance(value, Tensor) or value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(f"{name} is not a tensor, or it is smaller than it says")
    if sum(value.numel() for value in weights.values()) > file_bytes:  # they may share memory
        raise ValueError("its weights claim more values than the file has bytes")
    for name, value in weights.items():
        if value.isnan().any():
            raise ValueError(f"{name} holds NaN")


def check_weights(weights: Any, channels: int, file_bytes: int) -> None:
    """Checks a classifier's state_dict: that of ``check_tensors``, with sensible statistics.

    "mean" and "std" hold one value, or one for each of the images' ``channels``.
    """
    check_tensors(weights, file_bytes)
    limits = {"mean": (-math.inf, math.inf), "std": (0, math.inf), "threshold": (-1e-6, 1 + 1e-6)}
    if "temperature" in weights:
        limits["temperature"] = (0, math.inf)
    for name, (low, high) in limits.items():
        if name not in weights:
            raise ValueError(f"its weights have no {name}")
        if weights[name].numel() not in (1, channels):
            raise ValueError(f"{name} has {weights[name].numel()} values for {channels} channels")
        if not ((low < weights[name]) & (weights[name] < high)).all():
            raise ValueError(f"{name} is out of range")

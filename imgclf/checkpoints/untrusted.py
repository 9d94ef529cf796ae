"""What is refused of a checkpoint from a stranger, who may want it to call something or to fill the memory."""

import math
import os
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from imgclf.core.text import CONTROL

CALLS = re.compile(  # weights_only=True alone also makes bytearrays and tensors of any length that a file declares
    r"torch \w+Storage|torch\._utils _rebuild_(tensor_v2|parameter)|collections OrderedDict|_codecs encode"
)
LARGEST_PICKLE = 2**23  # bytes of everything that is no tensor; a thousand epochs take 2**19
LARGEST_IMAGE = 2**26  # values of image_shape
MOST_VALUES = 10_000  # in a configuration
TENSOR = 100  # bytes that a file takes for a tensor at least, beside its values


def check_archive(path: Path) -> None:
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


def check_tensors(weights: Any, channels: int) -> None:
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


class Budget(TorchDispatchMode):
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


def image_shape(shape: Any) -> tuple[int, int, int]:
    """Raises ValueError unless it is that of an image: channels, height, width."""
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)):
        raise ValueError(f"image_shape={shape}")
    if math.prod(shape) > LARGEST_IMAGE:
        raise ValueError(f"images of shape {tuple(shape)} are larger than {LARGEST_IMAGE} values")
    return tuple(shape)


def class_names(names: Any) -> list[str]:
    """Class names, which go to the terminal and into tables: raises ValueError for what does not belong there."""
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"a class is called by {type(name).__name__}, no string")
        if not 0 < len(name) < 256 or CONTROL.search(name):
            raise ValueError(f"a class is called {name[:50]!r}: give it a name of up to 255 printable characters")
    return list(names)


def check_configuration(config: Any, path: str | Path) -> None:
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

"""Starting from trained weights: those of a file go into a network whose head may be another one."""

import inspect
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgclf.checkpoints.files import METADATA_KEY, read_torch_file
from imgclf.checkpoints.untrusted import check_tensors
from imgclf.core.text import some_names
from imgclf.core.validation import checked
from imgclf.models.network import Network, Statistics, fit_statistics

SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".safetensors")
LAYER_TENSORS = ("weight", "bias", "running_mean", "running_var")  # a layer's tensors fit together, or not at all
COUNTER = "num_batches_tracked"  # batch norm's counter is a scalar in every network, so it matches no layers

log = logging.getLogger(__name__)


def build_network(factory: "partial[Network]", class_names: Sequence[str] = ()) -> Network:
    """Builds a network and, if its argument ``weights`` names a file, starts it from there with ``load_weights``.

    Args:
        factory: the class of a network with its arguments. Beside its own arguments, every network takes ``weights``, a
            file, and ``freeze_epochs``, as in ``Network``. Networks with published weights also take the name of these.
        class_names: of the data.

    Raises:
        ValueError, FileNotFoundError: as the network and ``load_weights`` raise them.
    """
    options = {**factory.keywords}
    weights, freeze_epochs = options.pop("weights", None), options.pop("freeze_epochs", 0)
    has_published = "weights" in inspect.signature(factory.func.__init__).parameters
    is_file = weights is not None and (not has_published or _names_a_file(weights))
    network = factory.func(**options, **({"weights": weights} if has_published and not is_file else {}))
    network.freeze_body(freeze_epochs)
    if is_file:
        log.info(load_weights(network, weights, class_names))
    return network


def _names_a_file(weights: Any) -> bool:
    path = Path(str(weights)).expanduser()
    return path.suffix in SUFFIXES or len(path.parts) > 1 or path.is_file()


@checked
def load_weights(network: Network, weights: str | Path, class_names: Sequence[str] = ()) -> str:
    """Copies the layers of a file into a network where names and shapes fit, and sets the network's ``statistics``.

    If no name fits, but all layers of the body have the same shapes in the same order, this order matches them. The
    head is left out if its shape or the class names differ. A first convolution for another number of channels is
    summed over them and shared out equally. Nothing that the file holds is executed.

    Args:
        weights: a state dict (.pt, .pth, .bin, .safetensors) or a checkpoint of imgclf (.ckpt).
        class_names: of the data. If a checkpoint has others, its head answers another question.

    Returns:
        What was taken, adapted and left, in one line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or holds more than tensors and plain values, or nothing beside the head fits.

    Example:
        >>> load_weights(CNN(num_classes=26), "outputs/digits/checkpoints/best.ckpt")
        'weights=outputs/digits/checkpoints/best.ckpt: took 2 of 3 layers; left the head layers.8'
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"weights={weights}: no such file; null trains from scratch")
    try:
        content = _read(path)
        source = _state_dict(content, file_bytes=os.path.getsize(path))
        metadata = content.get(METADATA_KEY)
        statistics = _own_statistics(source) if metadata else network.published_statistics
    except ValueError as error:
        raise ValueError(f"weights={weights}: {str(error).removeprefix(f'{path}: ')}") from error
    metadata = metadata if isinstance(metadata, Mapping) else {}
    own, head = _tensors(network.state_dict()), _names_of_head(network)
    matched, how = _match_names(own, source, head), ""
    if not matched.keys() - head:
        matched, how = _match_order(own, source, head) or matched, " by their order, as no name fits"
    if not matched.keys() - head:
        what = "only the head fits" if matched else "nothing fits"
        begins = " and ".join(f"{name} {tuple(value.shape)}" for name, value in map(_first, (source, own)))
        raise ValueError(f"weights={weights}: {what}, it is of another network (file and network begin with {begins})")
    if metadata and class_names and list(class_names) != metadata.get("class_names"):
        matched = {name: origin for name, origin in matched.items() if name not in head}
    taken = {name: _adapt(source[origin], own[name]) for name, origin in matched.items()}
    network.reset_head()
    network.load_state_dict(taken, strict=False)
    if statistics:
        network.statistics = fit_statistics(*statistics, channels=network.init_args["image_shape"][0])
    network.normalize = "image" if metadata.get("normalize") == "image" else None
    adapted = [name for name, origin in matched.items() if source[origin].shape != own[name].shape]
    return f"weights={weights}: {_describe(list(own), set(taken), head, adapted, how)}"


def _read(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return read_torch_file(path)
    from safetensors import SafetensorError  # lazy: only this format needs it
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"damaged, or no file of safetensors ({' '.join(str(error).split())[:200]})") from error


def _state_dict(content: Any, file_bytes: int) -> dict[str, Tensor]:
    """The tensors of a file: those it calls state_dict, else the whole file or the part with the most tensors."""
    content = content if isinstance(content, Mapping) else {}
    parts = [_tensors(part) for part in (content, *content.values()) if isinstance(part, Mapping)]
    named = content.get("state_dict")
    tensors = _tensors(named) if isinstance(named, Mapping) else max(parts, key=len, default={})
    if not tensors:
        raise ValueError("it holds no dictionary of tensors")
    check_tensors(tensors, file_bytes)
    return tensors


def _tensors(state: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict that say which network it belongs to."""
    return {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, Tensor) and not name.endswith(COUNTER)
    }


def _own_statistics(source: Mapping[str, Tensor]) -> Statistics:
    """Mean and deviation with which a checkpoint normalised its images."""
    mean, std = (source[name].flatten().tolist() if name in source else [] for name in ("mean", "std"))
    if not 0 < len(mean) == len(std) or not all(math.isfinite(value) for value in mean + std) or min(std) <= 0:
        raise ValueError("its mean and std are out of range")
    return mean, std


def _names_of_head(network: Network) -> set[str]:
    head = network.get_head()
    prefixes = tuple(f"{name}." for name, module in network.named_modules() if any(module is part for part in head))
    return {name for name in network.state_dict() if name.startswith(prefixes)}


def _layer(name: str) -> str:
    """The name of a tensor's layer; a tensor of another kind, such as a position embedding, is one by itself."""
    layer, _, kind = name.rpartition(".")
    return layer if kind in LAYER_TENSORS else name


def _first(state: Mapping[str, Tensor]) -> tuple[str, Tensor]:
    return next(iter(state.items()))


def _match_names(own: Mapping[str, Tensor], source: Mapping[str, Tensor], head: set[str]) -> dict[str, str]:
    """Maps names in the network to names in the file for the layers that fit; prefixes such as "module." may differ."""
    best: dict[str, str] = {}
    for ours in ("", "network."):
        short = {name.removeprefix(ours): name for name in own}
        for theirs in _prefixes(source):
            pairs = {short.get(name.removeprefix(theirs), ""): name for name in source if name.startswith(theirs)}
            pairs.pop("", None)
            fitting = _whole_layers(pairs, own, source) if len(pairs) > len(best) else {}
            if len(fitting.keys() - head) >= len(best.keys() - head) and len(fitting) > len(best):
                best = fitting
    return best


def _match_order(own: Mapping[str, Tensor], source: Mapping[str, Tensor], head: set[str]) -> dict[str, str]:
    """Maps names by their order, if both list the same kinds of tensors and the whole body fits; else it is empty."""
    if [_kind(name) for name in own] != [_kind(name) for name in source]:
        return {}
    fitting = _whole_layers(dict(zip(own, source, strict=True)), own, source)
    return fitting if own.keys() - head <= fitting.keys() else {}


def _whole_layers(pairs: dict[str, str], own: Mapping[str, Tensor], source: Mapping[str, Tensor]) -> dict[str, str]:
    """Keeps the pairs of names that belong to layers of which all tensors fit."""
    kernel = next((name for name, value in own.items() if value.ndim == 4), None)  # of the first convolution
    fitting = {name for name, origin in pairs.items() if _fits(source[origin], own[name], name == kernel)}
    broken = {_layer(name) for name in own if name not in fitting}
    return {name: origin for name, origin in pairs.items() if _layer(name) not in broken}


def _prefixes(names: Iterable[str]) -> list[str]:
    """The prefixes that a wrapper may have put before names: one or two of their dotted parts, or none."""
    parts = [name.split(".") for name in names]
    return ["", *dict.fromkeys(".".join(part[:n]) + "." for n in (1, 2) for part in parts if len(part) > n)]


def _kind(name: str) -> str:
    return name.rpartition(".")[2]


def _fits(value: Tensor, wanted: Tensor, is_kernel: bool) -> bool:
    same = value.shape == wanted.shape
    if is_kernel and value.ndim == 4:
        same = value.shape[:1] + value.shape[2:] == wanted.shape[:1] + wanted.shape[2:]
    return same and torch.can_cast(value.dtype, wanted.dtype)


def _adapt(value: Tensor, wanted: Tensor) -> Tensor:
    """Adapts a convolution's kernel to the channels of ``wanted``; its answer to grey images stays the same."""
    if value.shape == wanted.shape:
        return value
    return value.float().sum(1, keepdim=True).expand_as(wanted) / wanted.shape[1]


def _describe(own: list[str], taken: set[str], head: set[str], adapted: list[str], how: str) -> str:
    """Says in layers what ``load_weights`` did."""
    layers, left = dict.fromkeys(map(_layer, own)), [name for name in own if name not in taken]
    names = list(dict.fromkeys(map(_layer, left)))
    parts = [f"took {len(layers) - len(names)} of {len(layers)} layers{how}"]
    parts += [f"adapted {_layer(name)} to the channels" for name in adapted]
    parts += [f"left {'the head, ' if head.issuperset(left) else ''}{some_names(names)}"] if left else []
    return "; ".join(parts)

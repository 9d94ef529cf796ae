"""Builds a network without memory for its weights, however large the network is said to be."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

# Layers make their weights with these. Under torch.device("meta") arange and linspace would also lose their values,
# from which some networks (torchvision's RegNets) compute their widths.
WEIGHT_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


class _WeightsOnMeta(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in WEIGHT_FACTORIES and kwargs.get("device") is None:
            kwargs = {**kwargs, "device": "meta"}
        return func(*args, **kwargs)


@contextlib.contextmanager
def weights_on_meta(max_parameters: int) -> Iterator[None]:
    """Inside, the layers that this thread builds have weights on the meta device: shapes and dtypes, but no memory.

    Building more than ``max_parameters`` raises ValueError, because even layers without memory take time.
    """
    thread, count = threading.get_ident(), 0

    def count_parameter(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > max_parameters:
            raise ValueError(f"its network has more than {max_parameters} parameters, and its weights are fewer")

    hook = register_module_parameter_registration_hook(count_parameter)
    try:
        with _WeightsOnMeta():
            yield
    finally:
        hook.remove()


def unsaved_tensors(network: nn.Module) -> list[Tensor]:
    """The tensors of a network on the meta device that no state_dict brings: it computes them when it is built."""
    saved = network.state_dict().keys()
    buffers = [value for name, value in network.named_buffers() if name not in saved]
    attributes = [value for module in network.modules() for value in vars(module).values()]
    return [value for value in (*buffers, *attributes) if isinstance(value, Tensor) and value.is_meta]

"""Which device and which precision, from what the machine has."""

import contextlib
import ctypes
import os
from typing import Any

import torch
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from torch import nn

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


def choose_device(accelerator: str, option: str = "accelerator") -> torch.device:
    """The device for "auto", "cpu" or "gpu" ("cuda" and "mps" name a kind of GPU); ``option`` is its name in errors.

    Raises:
        ValueError: another name, or a GPU asked for where PyTorch sees none.
    """
    if accelerator not in ACCELERATORS:
        raise ValueError(f"{option}={accelerator}: choose auto, cpu or gpu")
    available = {"cuda": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available()}
    wanted = [accelerator] if accelerator in available else available
    found = next((name for name in wanted if available[name]), None)
    if accelerator != "cpu" and found:
        return torch.device(found)
    if accelerator in ("auto", "cpu"):
        return torch.device("cpu")
    raise ValueError(f"{option}={accelerator}: PyTorch sees no such GPU here; use {option}=cpu (or auto)")


def choose_precision(precision: str | int, device: torch.device, network: nn.Module | None = None) -> str | int:
    """Lightning's precision for "auto": bf16-mixed where the device computes in it fast, 32-true elsewhere.

    On a CPU also 32-true for a network with a convolution whose stride is longer than its input: oneDNN (of torch 2.15)
    leaves a part of such a kernel's gradient in bfloat16 as the memory was, numbers of any size.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = (
            device.type == "cpu"
            and torch.backends.mkldnn.is_available()
            and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
        fast = fast and not (network and _strides_too_far(network))
    return "bf16-mixed" if fast else "32-true"


def _strides_too_far(network: Any) -> bool:
    image_shape = network.init_args["image_shape"]
    found, handles = [], []

    def look(layer: nn.Conv2d, inputs: tuple[torch.Tensor, ...]) -> None:
        sides = inputs[0].shape[-2:], layer.kernel_size, layer.stride
        found.extend(side for side, size, stride in zip(*sides, strict=True) if size > 1 and side < stride)

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and max(layer.stride) > 1:
            handles.append(layer.register_forward_pre_hook(look))
    if handles:
        network.eval()
        with torch.inference_mode():
            network(torch.zeros(1, *image_shape))
        network.train()
    for handle in handles:
        handle.remove()
    return bool(found)


def shorten_steps(device: torch.device) -> None:
    """Two settings of this process that spare every step on ``device`` some time.

    glibc, where there is glibc, keeps the memory that a step frees for the next one: by default it hands large blocks
    back to the system, which then clears them page by page. That took more than half of a step of a CNN on 224x224
    images.

    Adam asks at every step whether there is a GPU. Lightning has torch ask the driver's library, which is loaded anew
    each time: 0.2 ms, a tenth of a step of an MLP. Asking CUDA itself, whose answer is kept, would keep it from
    processes forked later, which a run on a CPU has no use for.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped on its own
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks
    if device.type == "cpu":
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)

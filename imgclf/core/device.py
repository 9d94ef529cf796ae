"""Which device a run computes on, and in which precision."""

import contextlib
import ctypes
import logging
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

# In a training step on a CPU with bfloat16, MobileNet, EfficientNet-B, MNASNet and ShuffleNet are 1.3 to 2.4 times as
# fast in float32; ConvNeXt, EfficientNetV2 and ResNeXt are faster in bfloat16. Their shares are above 0.0175 and below
# 0.0155.
DEPTHWISE_SHARE = 0.0165
GPUS = ("cuda", "mps")  # the kinds that Lightning trains on


def choose_device(accelerator: str = "auto") -> torch.device:
    """Returns the device that a name stands for.

    Args:
        accelerator: "cpu"; "gpu" for a GPU of any kind; "cuda" or "mps" for one of that kind; "auto" for a GPU if the
            machine has one, else the CPU.

    Raises:
        ValueError: the name is unknown, or PyTorch sees no such GPU.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if accelerator not in ("auto", "cpu", "gpu", *GPUS):
        raise ValueError(f"accelerator={accelerator}: choose auto, cpu or gpu")
    if accelerator == "cpu":
        return torch.device("cpu")
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is not None and found.type in ((accelerator,) if accelerator in GPUS else GPUS):
        return torch.device(found.type)
    if accelerator == "auto":
        return torch.device("cpu")
    raise ValueError(f"accelerator={accelerator}: PyTorch sees no such GPU here; use accelerator=cpu (or auto)")


def choose_precision(precision: str | int, device: torch.device, network: nn.Module | None = None) -> str | int:
    """Chooses Lightning's precision for "auto", and leaves any other value as it is.

    "auto" is bf16-mixed where the device computes fast in bfloat16, and 32-true elsewhere. On a CPU, it is also 32-true
    for a network with many depthwise convolutions, which are half as fast in bfloat16, and for one with a convolution
    whose stride is longer than its input. oneDNN (with torch 2.15) does not write the whole bfloat16 gradient of such a
    kernel, and leaves arbitrary numbers in the rest.

    Args:
        precision: "auto", or one of Lightning's.
        device: what the run computes on.
        network: an imgclf Network, to be looked at for such convolutions; a log line says if it decides.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and _cpu_is_fast_in_bfloat16()
        if fast and network and (_is_depthwise(network) or _strides_past_input(network)):
            log.info("precision 32-true: on this CPU some of the network's convolutions are slow or wrong in bfloat16")
            fast = False
    return "bf16-mixed" if fast else "32-true"


def _cpu_is_fast_in_bfloat16() -> bool:
    # Private API: torch does not say in public whether oneDNN has bfloat16 kernels for this CPU. Where the function is
    # gone, training stays in float32.
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    return torch.backends.mkldnn.is_available() and supported()


def _is_depthwise(network: nn.Module) -> bool:
    """Whether more than ``DEPTHWISE_SHARE`` of the weights belong to depthwise convolutions."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    depthwise = [layer for layer in layers if isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1]
    return _num_weights(depthwise) > DEPTHWISE_SHARE * _num_weights(layers)


def _num_weights(layers: Sequence[nn.Module]) -> int:
    return sum(layer.weight.numel() for layer in layers)  # pyrefly: ignore[bad-argument-type, not-callable]


def _strides_past_input(network: Any) -> bool:
    """Whether a convolution of the network has a stride longer than the side of its input."""
    found = False

    def look(layer: nn.Conv2d, inputs: tuple[Tensor, ...]) -> None:
        nonlocal found
        for side, size, stride in zip(inputs[0].shape[-2:], layer.kernel_size, layer.stride, strict=True):
            found = found or (size > 1 and side < stride)

    strided = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and max(layer.stride) > 1]
    hooks = [layer.register_forward_pre_hook(look) for layer in strided]
    if hooks:
        network.eval()
        with torch.inference_mode():
            network(torch.zeros(1, *network.init_args["image_shape"]))
        network.train()
    for hook in hooks:
        hook.remove()
    return found


def use_threads(threads: int | None) -> None:
    """Has torch compute with so many threads on a CPU, or with its own number; warns where the machine is busy."""
    if threads:
        torch.set_num_threads(threads)
    cores = os.cpu_count() or 1
    with contextlib.suppress(OSError, AttributeError):  # Windows has no such figure
        if (load := os.getloadavg()[0]) > cores + 1 and torch.get_num_threads() > 1:
            log.warning("the machine is busy (load %.0f on %d cores): threads=1 may be faster", load, cores)


def shorten_steps(device: torch.device) -> None:
    """Changes two settings of this process that cost every training step on ``device`` some time.

    glibc returns large blocks of memory to the system as soon as they are free, and the system clears each page before
    it gives it out again. This took more than half of a step of a CNN on 224x224 images. From here on, glibc keeps the
    blocks for the next step. Systems without glibc are left alone.

    Adam asks at every step whether there is a GPU. Lightning has torch ask the driver's library, which is loaded anew
    each time. This takes 0.2 ms, a tenth of a step of an MLP. A run on a CPU asks CUDA itself instead, which remembers
    the answer. (A run on a GPU must not: processes forked afterwards could not use CUDA.)
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(-4, 0)  # M_MMAP_MAX: no block is mapped on its own
        mallopt(-1, -1)  # M_TRIM_THRESHOLD: the heap never shrinks
    if device.type == "cpu":
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)

"""Every image classifier of torchvision, for images of any number of channels."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models

from imgclf.core.validation import Count, Positive, checked
from imgclf.models.network import Network


class TorchvisionNetwork(Network):
    """A classifier of torchvision with a new head, trained from scratch or from pretrained weights.

    The first convolution takes as many channels as the images have. For images of one channel, its pretrained weights
    are summed over RGB. The auxiliary heads of GoogLeNet and Inception are left out.

    Args:
        image_shape: channels, height, width.
        num_classes: number of logits.
        name: one of ``torchvision.models.list_models(module=torchvision.models)``, such as "resnet18".
        weights: torchvision's name for a set of pretrained weights, such as "DEFAULT"; None for random weights.
        freeze_epochs: number of epochs in which only the head is trained. The other layers are trained from then on,
            or never if the run has no more epochs.

    Raises:
        ValueError: the name or the set of weights is unknown, or the network does not take images of that shape.
        FileNotFoundError: the weights are not on disk and cannot be downloaded.

    Example:
        >>> TorchvisionNetwork((1, 64, 64), 10, "resnet18")(torch.rand(2, 1, 64, 64)).shape
        torch.Size([2, 10])
    """

    @checked
    def __init__(
        self,
        image_shape: Sequence[Positive] = (3, 224, 224),
        num_classes: Positive = 10,
        name: str = "resnet18",
        weights: str | None = None,
        freeze_epochs: Count = 0,
    ) -> None:
        super().__init__()
        self.init_args["weights"] = None  # a checkpoint brings its own weights
        self.freeze_epochs = freeze_epochs
        known = models.list_models(module=models)
        if name not in known:
            raise ValueError(f"name={name}: choose one of {', '.join(known)}")
        try:
            self.network = _build(name, image_shape, num_classes).eval()
            _try_shapes(self.network, image_shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"name={name}: it does not take images of {tuple(image_shape)} ({reason})") from error
        self.network.train()
        if weights is not None:
            _load_all_but_head(self.network, _pretrained(name, weights), weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def begin_epoch(self, epoch: int) -> None:
        frozen = epoch < self.freeze_epochs
        self.network.requires_grad_(not frozen)
        *body, head = self.network.children()
        head.requires_grad_(True)
        for part in body:
            part.train(not frozen)  # in evaluation mode, the running averages of batch norm are frozen too


def _build(name: str, image_shape: Sequence[int], num_classes: int) -> nn.Module:
    channels, height, width = image_shape
    options = {
        "vit": {"image_size": height},
        "maxvit": {"input_size": (height, width)},
        "googlenet": {"aux_logits": False, "init_weights": True},
        "inception": {"aux_logits": False, "init_weights": True},
    }.get(name.split("_")[0], {})
    network = models.get_model(name, num_classes=num_classes, **options)
    path, first = next((path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d))
    if first.in_channels != channels:
        settings = {
            setting: getattr(first, setting)
            for setting in ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        }
        network.set_submodule(path, nn.Conv2d(channels, bias=first.bias is not None, **settings))
    return network


def _try_shapes(network: nn.Module, image_shape: Sequence[int]) -> None:
    """Raises what the network raises for images of that shape. The meta device computes shapes only."""
    tensors = chain(network.named_parameters(), network.named_buffers())
    state = {name: tensor.to("meta") for name, tensor in tensors}
    functional_call(network, state, torch.empty(1, *image_shape, device="meta"))


def _pretrained(name: str, weights: str) -> dict[str, Tensor]:
    known = models.get_model_weights(name)
    if weights != "DEFAULT" and weights not in known.__members__:
        raise ValueError(f"weights={weights}: {name} has {', '.join(known.__members__)}")
    chosen = known[weights]
    try:
        return models.get_model(name, weights=chosen, progress=False).state_dict()
    except (OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise FileNotFoundError(
            f"weights={weights}: {Path(chosen.url).name} is not in {folder} and cannot be downloaded from "
            f"{chosen.url} ({' '.join(str(error).split())}): put it there, or weights=null trains from scratch"
        ) from error


def _load_all_but_head(network: nn.Module, pretrained: dict[str, Tensor], weights: str) -> None:
    """Copies the pretrained weights. Those of the head and of auxiliary heads have no counterpart in ``network``."""
    own = network.state_dict()
    first = next(name for name, value in own.items() if value.ndim == 4)
    if own[first].shape[1] == 1:
        pretrained = {**pretrained, first: pretrained[first].sum(1, keepdim=True)}
    head = list(network.named_children())[-1][0]
    both = [name for name in own if name in pretrained]
    fitting = {name: pretrained[name] for name in both if own[name].shape == pretrained[name].shape}
    others = [name for name in own if name not in fitting and not name.startswith(f"{head}.")]
    if others:
        raise ValueError(f"weights={weights}: made for images of another size ({others[0]}): try image_size=224")
    network.load_state_dict(fitting, strict=False)

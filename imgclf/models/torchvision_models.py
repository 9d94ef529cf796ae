"""Every image classifier of torchvision, for images of any number of channels."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models

from imgclf.models.network import Network


class TorchvisionNetwork(Network):
    """A classifier of torchvision's zoo, from scratch or from pretrained weights, with a head of its own.

    The first convolution takes as many channels as the images have; pretrained filters are summed over RGB for one
    channel. Auxiliary heads (GoogLeNet, Inception) are left out.

    Args:
        image_shape: channels, height, width.
        num_classes: number of logits.
        name: one of ``torchvision.models.list_models(module=torchvision.models)``, such as "resnet18".
        weights: None, or torchvision's name for a set of pretrained weights, such as "DEFAULT".
        freeze_epochs: epochs in which only the head learns, to warm it up; the rest of the network joins in after
            them, or never, if the run is no longer than that.

    Raises:
        ValueError: an unknown name or set of weights, or a network that does not take images of that shape.
        FileNotFoundError: the weights are not on disk and cannot be downloaded.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (3, 224, 224),
        num_classes: int = 10,
        name: str = "resnet18",
        weights: str | None = None,
        freeze_epochs: int = 0,
    ) -> None:
        super().__init__()
        self.init_args["weights"] = None  # a checkpoint brings its own
        if not isinstance(freeze_epochs, int) or freeze_epochs < 0:
            raise ValueError(f"model.freeze_epochs={freeze_epochs}: give a whole number from 0 up")
        self.freeze_epochs = freeze_epochs
        known = models.list_models(module=models)
        if name not in known:
            raise ValueError(f"model.name={name}: choose one of {', '.join(known)}")
        try:
            self.network = _build(name, image_shape, num_classes).eval()
            _try_shapes(self.network, image_shape)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"model.name={name} does not take {tuple(image_shape)} images ({reason})") from error
        self.network.train()
        if weights is not None:
            _start_from(self.network, _pretrained(name, weights), weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def begin_epoch(self, epoch: int) -> None:
        frozen = epoch < self.freeze_epochs
        self.network.requires_grad_(not frozen)
        *body, head = self.network.children()
        head.requires_grad_(True)
        for part in body:  # nor do a frozen network's running averages move
            part.train(not frozen)


def _build(name: str, image_shape: Sequence[int], num_classes: int) -> nn.Module:
    _, height, width = image_shape
    options = {
        "vit": {"image_size": height},
        "maxvit": {"input_size": (height, width)},
        "googlenet": {"aux_logits": False, "init_weights": True},
        "inception": {"aux_logits": False, "init_weights": True},
    }.get(name.split("_")[0], {})
    network = models.get_model(name, num_classes=num_classes, **options)
    path, first = next((path, module) for path, module in network.named_modules() if isinstance(module, nn.Conv2d))
    if first.in_channels != image_shape[0]:
        settings = {
            setting: getattr(first, setting)
            for setting in ("out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
        }
        network.set_submodule(path, nn.Conv2d(image_shape[0], bias=first.bias is not None, **settings))
    return network


def _try_shapes(network: nn.Module, image_shape: Sequence[int]) -> None:
    """Raises what the network does for images of that shape; on the meta device, which computes nothing else."""
    tensors = chain(network.named_parameters(), network.named_buffers())
    state = {name: tensor.to("meta") for name, tensor in tensors}
    functional_call(network, state, torch.empty(1, *image_shape, device="meta"))


def _pretrained(name: str, weights: str) -> dict[str, Tensor]:
    known = models.get_model_weights(name)
    if weights != "DEFAULT" and weights not in known.__members__:
        raise ValueError(f"model.weights={weights}: {name} has {', '.join(known.__members__)}")
    chosen = known[weights]
    try:
        return models.get_model(name, weights=chosen, progress=False).state_dict()
    except (OSError, RuntimeError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise FileNotFoundError(
            f"model.weights={weights}: {Path(chosen.url).name} is not in {folder} and cannot be downloaded from "
            f"{chosen.url} ({' '.join(str(error).split())}): put it there, or model.weights=null trains from scratch"
        ) from error


def _start_from(network: nn.Module, weights: dict[str, Tensor], option: str) -> None:
    """Copies pretrained weights, but for the head, whose size is another, and heads that are left out."""
    own = network.state_dict()
    first = next(name for name, value in own.items() if value.ndim == 4)
    if own[first].shape[1] == 1:
        weights = {**weights, first: weights[first].sum(1, keepdim=True)}
    head = list(network.named_children())[-1][0]
    kept = {name: weights[name] for name in own if name in weights and own[name].shape == weights[name].shape}
    if others := [name for name in own if name not in kept and not name.startswith(f"{head}.")]:
        raise ValueError(
            f"model.weights={option}: made for images of another size ({others[0]}): try data.image_size=224"
        )
    network.load_state_dict(kept, strict=False)

"""Every image classifier of torchvision, for images of any number of channels."""

import functools
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision import models

from imgclf.core.validation import Count, Positive, checked
from imgclf.models.network import Network, Statistics, build_for_shape, fit_statistics


class TorchvisionNetwork(Network):
    """A classifier of torchvision with a new head, trained from scratch or from pretrained weights.

    The first convolution takes as many channels as the images have. For images of one channel, its pretrained weights
    are summed over RGB. The auxiliary heads of GoogLeNet and Inception are left out.

    Args:
        name: one of ``torchvision.models.list_models(module=torchvision.models)``.
        weights: torchvision's name for a set of pretrained weights, such as "DEFAULT"; None for random weights.
        freeze_epochs: number of epochs in which only the head is trained; the other layers follow from then on.

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
        known = models.list_models(module=models)
        if name not in known:
            raise ValueError(f"name={name}: choose one of {', '.join(known)}")
        build = functools.partial(_build, name, image_shape, num_classes)
        self.network = build_for_shape(build, name, image_shape)
        self.freeze_body(freeze_epochs)
        self.published_statistics = _statistics(name, "DEFAULT")
        if weights is not None:
            _load_pretrained(self.network, name, weights)
            self.reset_head()
            self.statistics = fit_statistics(*_statistics(name, weights), channels=image_shape[0])

    @classmethod
    def published_size(cls, name: str, weights: str) -> list[int] | None:
        if name not in models.list_models(module=models):
            return None  # building the network says so
        known = models.get_model_weights(name)
        preprocess = known[weights if weights in known.__members__ else "DEFAULT"].transforms()
        return [*preprocess.crop_size * 2][:2]

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def get_head(self) -> list[nn.Module]:
        return list(self.network.children())[-1:]


def _build(name: str, image_shape: Sequence[int], num_classes: int) -> nn.Module:
    channels, height, width = image_shape
    options = {
        "vit": {"image_size": height},
        "maxvit": {"input_size": (height, width)},
        "googlenet": {"aux_logits": False, "init_weights": True},
        "inception": {"aux_logits": False, "init_weights": True},
    }.get(name.split("_")[0], {})
    network = models.get_model(name, num_classes=num_classes, **options)
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    if first.in_channels != channels:
        first.in_channels = channels
        first.weight = nn.Parameter(first.weight.new_empty(first.out_channels, channels, *first.kernel_size))
        first.reset_parameters()
    return network


def _statistics(name: str, weights: str) -> Statistics:
    """Mean and deviation of each channel with which the weights were trained."""
    preprocess = models.get_model_weights(name)[weights].transforms()
    return list(preprocess.mean), list(preprocess.std)


def _load_pretrained(network: nn.Module, name: str, weights: str) -> None:
    """Copies all weights but those of the head and of auxiliary heads."""
    known = models.get_model_weights(name)
    if weights not in known.__members__:
        raise ValueError(f"weights={weights}: {name} has {', '.join(known.__members__)}")
    try:
        pretrained = models.get_model(name, weights=known[weights], progress=False).state_dict()
    except (OSError, RuntimeError) as error:
        url, folder = known[weights].url, Path(torch.hub.get_dir()) / "checkpoints"
        raise FileNotFoundError(
            f"weights={weights}: {Path(url).name} is not in {folder} and cannot be downloaded from {url} "
            f"({' '.join(str(error).split())}): put it there, or weights=null trains from scratch"
        ) from error
    own = network.state_dict()
    first = next(key for key, value in own.items() if value.ndim == 4)
    if own[first].shape[1] == 1:
        pretrained[first] = pretrained[first].sum(1, keepdim=True)
    *_, (head, _) = network.named_children()
    fitting = {key: value for key, value in pretrained.items() if key in own and own[key].shape == value.shape}
    others = [key for key in own if key not in fitting and not key.startswith(f"{head}.")]
    if others:
        raise ValueError(f"weights={weights}: made for images of another size ({others[0]}): try image_size=224")
    network.load_state_dict(fitting, strict=False)

"""What networks share: their base, and a fast dropout."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from imgclf.core.rebuild import Rebuildable
from imgclf.core.rng import random_bytes
from imgclf.core.validation import Count, Rate, checked

Statistics = tuple[list[float], list[float]]  # mean and standard deviation of each channel


class Network(Rebuildable, nn.Module):
    """An nn.Module that a checkpoint can rebuild.

    The constructor of a subclass takes ``image_shape`` (channels, height, width) and ``num_classes``, then arguments of
    its own. All are numbers, strings or lists of these, because a checkpoint keeps nothing else. ``forward`` maps float
    images (N, C, H, W) to logits (N, num_classes). For data of two classes, ``num_classes`` is 1: the only logit is the
    second class's.

    Attributes:
        statistics: the mean and standard deviation of each channel that pretrained weights expect; else None.
        normalize: "dataset" or "image" where pretrained weights expect it, as the classifier's option; else None.
        published_statistics: ``statistics`` of the weights that are published for this network, if there are any.
        freeze_epochs: number of epochs in which only the head is trained; the other layers follow from then on.
    """

    statistics: Statistics | None = None
    normalize: Literal["dataset", "image"] | None = None
    published_statistics: Statistics | None = None
    freeze_epochs: int = 0

    @classmethod
    def published_size(cls, name: str, weights: str) -> list[int] | None:
        """Height and width of the images on which the weights of this name were trained; None if it is not known.

        A file, as ``weights``, is taken for one of the network's default weights.
        """
        return None

    def get_head(self) -> list[nn.Module]:
        """The modules that turn features into logits: by default, the last layer with weights."""
        return [module for module in self.modules() if next(module.parameters(recurse=False), None) is not None][-1:]

    def reset_head(self) -> None:
        """Draws the head's linear layers anew, as torch does.

        Some zoos draw them for a thousand classes: with one logit, they would begin with a loss of 4 or more.
        """
        for module in (module for part in self.get_head() for module in part.modules()):
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    def get_body(self) -> list[nn.Parameter]:
        """The weights of everything but the head."""
        head = {id(parameter) for module in self.get_head() for parameter in module.parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in head]

    @checked
    def freeze_body(self, freeze_epochs: Count) -> None:
        """Has only the head trained in the first epochs; ValueError if there is nothing beside the head."""
        if freeze_epochs and not self.get_body():
            raise ValueError(f"freeze_epochs={freeze_epochs}: this network has no layer beside its head: give 0")
        self.freeze_epochs = freeze_epochs

    def begin_epoch(self, epoch: int) -> None:
        """Is called in training mode before each epoch (from 0), and once more when training starts or is resumed."""
        if self.freeze_epochs:
            frozen = epoch < self.freeze_epochs
            self.requires_grad_(not frozen)
            self.train(not frozen)  # in evaluation mode, the running averages of batch norm are frozen too
            for module in self.get_head():
                module.requires_grad_(True).train()


def build_for_shape(build: Callable[[], nn.Module], name: str, image_shape: Sequence[int]) -> nn.Module:
    """Builds a network of a zoo and tries it on the meta device, which computes shapes only.

    Raises:
        ValueError: the network of this name does not take images of this shape.
    """
    try:
        network = build()
        state = {key: value.to("meta") for key, value in network.state_dict().items()}
        functional_call(network.eval(), state, torch.empty(1, *image_shape, device="meta"))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"name={name}: it does not take images of {tuple(image_shape)} ({reason})") from error
    return network.train()


def fit_statistics(mean: Sequence[float], std: Sequence[float], channels: int) -> Statistics:
    """Mean and deviation of each channel, for images of another number of channels.

    It belongs to a first convolution whose weights were summed over its channels and shared out equally.
    """
    if len(mean) == len(std) == channels:
        return list(mean), list(std)
    return [sum(mean) / len(mean)] * channels, [sum(std) / len(std)] * channels


class Dropout(nn.Dropout):
    """Dropout whose mask is drawn as random bytes. On a CPU, that is several times as fast as torch's Dropout.

    ``p`` is rounded to a multiple of 1/256, and is at most 255/256.
    """

    @checked
    def __init__(self, p: Rate = 0.5) -> None:
        super().__init__(min(round(p * 256), 255) / 256)

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return input
        if torch.compiler.is_compiling():  # the compiler fuses torch's dropout with its neighbours
            return super().forward(input)
        keep = random_bytes(tuple(input.shape), input.device) >= round(self.p * 256)
        return input * keep.to(input.dtype).mul_(1 / (1 - self.p))

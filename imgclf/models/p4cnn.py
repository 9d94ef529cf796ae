"""A convolutional network that sees an image in four orientations."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgclf.models.layers import Dropout
from imgclf.models.network import Network, check_whole, check_widths

TURNS = 4  # of 90 degrees


class P4Conv(nn.Module):
    """3x3 convolution over the group p4 of shifts and quarter turns (Cohen and Welling 2016), normalised, then ReLU.

    Feature maps are (N, 4 * channels, H, W): all channels of the first orientation, then all of the second, and so on.
    Those of an image turned by 90 degrees are turned likewise and move on by one orientation: ``weight`` is used in
    four orientations, and batch normalisation takes those of a channel together.

    Args:
        before: channels of the input, a map of four orientations; of an image if ``lifting``.
        after: channels of the output, in each orientation.
        lifting: the input is an image.
        pool: 2x2 max pooling after the convolution.
    """

    def __init__(self, before: int, after: int, lifting: bool = False, pool: bool = False) -> None:
        super().__init__()
        self.lifting, self.pool = lifting, pool
        self.weight = nn.Parameter(torch.empty(after, before if lifting else TURNS * before, 3, 3))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self._kernel().to(memory_format=torch.channels_last), padding=1)
        if self.pool:
            x = F.max_pool2d(x, 2)
        n, _, height, width = x.shape
        # The orientations side by side, as if of a map four times as wide: where channels come last that is a view.
        x = x.permute(0, 2, 3, 1).reshape(n, height, width * TURNS, -1).permute(0, 3, 1, 2)
        x = F.relu(self.norm(x), inplace=True)
        return x.permute(0, 2, 3, 1).reshape(n, height, width, -1).permute(0, 3, 1, 2)

    def _kernel(self) -> Tensor:
        if self.lifting:
            return torch.cat([self.weight.rot90(turn, (2, 3)) for turn in range(TURNS)])
        weight = self.weight.unflatten(1, (TURNS, -1))
        return torch.cat([weight.rot90(turn, (3, 4)).roll(turn, 1).flatten(1, 2) for turn in range(TURNS)])


class P4CNN(Network):
    """Blocks of ``P4Conv``, each but the last halving the resolution, the maximum over the image, then logits.

    Args:
        image_shape: channels, height, width.
        num_classes: number of logits.
        channels: filters of each block, each of which is used in four orientations.
        depth: convolutions in each block.
        invariant: the maximum is also over orientations, so that an image and its quarter turns (of sides that the
            pooling divides evenly) have the same logits. Upright digits need theirs: 6 and 9.
        dropout: before the last layer.

    Raises:
        ValueError: the image is too small for that many blocks.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        channels: Sequence[int] = (12, 24, 48),
        depth: int = 2,
        invariant: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_widths("channels", channels)
        check_whole("depth", depth)
        if not channels or min(image_shape[1:]) < 2 ** (len(channels) - 1):
            raise ValueError(f"model.channels={list(channels)}: give from 1 to as many blocks as halve the image")
        layers: list[nn.Module] = []
        before, lifting = image_shape[0], True
        for block, after in enumerate(channels):
            for place in range(depth):
                layers.append(P4Conv(before, after, lifting, pool=place == 0 and block < len(channels) - 1))
                before, lifting = after, False
        self.layers, self.invariant = nn.Sequential(*layers), invariant
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(before if invariant else TURNS * before, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layers(images).amax((2, 3))
        if self.invariant:
            features = features.unflatten(1, (TURNS, -1)).amax(1)
        return self.head(self.dropout(features))

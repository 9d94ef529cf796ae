"""A convolutional network that sees an image in four orientations."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgclf.core.validation import Positive, Rate, Size, Widths, checked
from imgclf.models.network import Dropout, Network

ORIENTATIONS = 4  # turns of 0, 90, 180 and 270 degrees


class P4Conv(nn.Module):
    """3x3 convolution over the group p4 of shifts and quarter turns (Cohen and Welling 2016), batch norm, then ReLU.

    A feature map is (N, 4 * channels, H, W): all channels of the first orientation, then all of the second, and so on.
    If the image is turned by 90 degrees, each feature map is turned by 90 degrees and moves to the next orientation.
    This holds because ``weight`` is used in four orientations, and because batch normalisation takes the four
    orientations of a channel together. If ``lifting``, the input is an image, which has no orientations yet.
    """

    def __init__(self, in_channels: int, out_channels: int, lifting: bool = False, pool: bool = False) -> None:
        super().__init__()
        self.lifting, self.pool = lifting, pool
        input_maps = in_channels if lifting else ORIENTATIONS * in_channels
        self.weight = nn.Parameter(torch.empty(out_channels, input_maps, 3, 3))
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self._kernel().to(memory_format=torch.channels_last), padding=1)
        if self.pool:
            x = F.max_pool2d(x, 2)
        n, _, height, width = x.shape
        # Batch norm sees the orientations side by side, as one map four times as wide. In channels_last memory this is
        # a view, without a copy.
        x = x.permute(0, 2, 3, 1).reshape(n, height, width * ORIENTATIONS, -1).permute(0, 3, 1, 2)
        x = F.relu(self.norm(x), inplace=True)
        return x.permute(0, 2, 3, 1).reshape(n, height, width, -1).permute(0, 3, 1, 2)

    def _kernel(self) -> Tensor:
        """The weight in four orientations, (4 * out_channels, input maps, 3, 3)."""
        if self.lifting:
            return torch.cat([self.weight.rot90(turn, (2, 3)) for turn in range(ORIENTATIONS)])
        weight = self.weight.unflatten(1, (ORIENTATIONS, -1))
        return torch.cat([weight.rot90(turn, (3, 4)).roll(turn, 1).flatten(1, 2) for turn in range(ORIENTATIONS)])


class P4CNN(Network):
    """Blocks of ``P4Conv``, the maximum over the image, dropout and a linear layer.

    Args:
        channels: output channels of each block, in each orientation. Each block but the last halves the image.
        depth: convolutions in each block.
        invariant: take the maximum over orientations too. Then an image and its quarter turns have the same logits, if
            the pooling divides the image's sides evenly. Leave it off where the orientation matters: a 6 is not a 9.
    """

    @checked
    def __init__(
        self,
        image_shape: Sequence[Positive] = (1, 28, 28),
        num_classes: Positive = 10,
        channels: Widths = (12, 24, 48),
        depth: Size = 2,
        invariant: bool = False,
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        in_channels, height, width = image_shape
        if not channels or min(height, width) < 2 ** (len(channels) - 1):
            raise ValueError(f"channels={list(channels)}: give one block or more; each but the last halves the image")
        layers: list[nn.Module] = []
        for block, out_channels in enumerate(channels):
            for place in range(depth):
                pool = place == 0 and block < len(channels) - 1
                layers.append(P4Conv(in_channels, out_channels, lifting=not layers, pool=pool))
                in_channels = out_channels
        self.layers, self.invariant = nn.Sequential(*layers), invariant
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(in_channels if invariant else ORIENTATIONS * in_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.layers(images).amax((2, 3))
        if self.invariant:
            features = features.unflatten(1, (ORIENTATIONS, -1)).amax(1)
        return self.head(self.dropout(features))

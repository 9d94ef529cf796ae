"""The small convolutional network."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from imgclf.core.validation import Positive, Rate, Size, Widths, checked
from imgclf.models.network import Dropout, Network


class CNN(Network):
    """Blocks of convolutions, batch norm if wanted, 2x2 max pooling and ReLU, then dropout and linear layers.

    Args:
        channels: output channels of each block. The image has to be large enough for that many blocks.
        depth: number of convolutions in each block. The pooling follows the first.
        padding: pixels added on every side of each convolution's input.
        global_pool: whether the linear layers see the average over the image of each channel, instead of every pixel.
            They have fewer weights then.
        hidden: units of each linear layer before the last one.
    """

    @checked
    def __init__(
        self,
        image_shape: Sequence[Positive] = (1, 28, 28),
        num_classes: Positive = 10,
        channels: Widths = (32, 64),
        depth: Size = 1,
        kernel_size: Size = 3,
        padding: Annotated[int, Field(ge=0, le=1000)] = 0,
        global_pool: bool = False,
        hidden: Widths = (),
        dropout: Rate = 0.5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        in_channels, height, width = image_shape
        layers: list[nn.Module] = []
        for out_channels in channels:
            for place in range(depth):
                height, width = (side + 2 * padding - kernel_size + 1 for side in (height, width))
                layers.append(nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=not batch_norm))
                if place == 0:
                    # Pooling before ReLU gives the same values as after it, and leaves a quarter of them to ReLU.
                    height, width = height // 2, width // 2
                    layers.append(nn.MaxPool2d(2))
                if min(height, width) < 1:
                    raise ValueError(f"channels={list(channels)}: too many blocks for {tuple(image_shape)} images")
                if batch_norm:
                    layers.append(nn.BatchNorm2d(out_channels))
                layers.append(nn.ReLU(inplace=True))
                in_channels = out_channels
        if global_pool:
            layers.append(nn.AdaptiveAvgPool2d(1))
            height = width = 1
        layers += [nn.Flatten(), Dropout(dropout)]
        features = in_channels * height * width
        for units in hidden:
            layers += [nn.Linear(features, units), nn.ReLU(inplace=True)]
            features = units
        self.layers = nn.Sequential(*layers, nn.Linear(features, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

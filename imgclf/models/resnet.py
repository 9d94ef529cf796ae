"""A compact residual network for small images."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from imgclf.core.validation import Positive, Rate, Size, Widths, checked
from imgclf.models.network import Dropout, Network


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation beside a shortcut (He et al. 2016, "basic block").

    In training, the convolutions are left out for an image with probability ``drop``.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, drop: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.drop = StochasticDepth(drop, "row")
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.drop(self.norm2(self.conv2(y))) + self.shortcut(x), inplace=True)


class ResNet(Network):
    """A 3x3 stem, stages of residual blocks, the average over the image, dropout and a linear layer.

    Args:
        widths: channels of each stage. Each stage but the first halves the image.
        depth: residual blocks in each stage.
        stem_stride: 2 halves large images at once.
        stochastic_depth: probability of leaving out the last block for an image in training. The probability rises
            linearly from the first block to the last (Huang et al. 2016).
    """

    @checked
    def __init__(
        self,
        image_shape: Sequence[Positive] = (1, 28, 28),
        num_classes: Positive = 10,
        widths: Widths = (16, 32, 64),
        depth: Size = 1,
        stem_stride: Size = 1,
        dropout: Rate = 0.0,
        stochastic_depth: Rate = 0.0,
    ) -> None:
        super().__init__()
        if not widths:
            raise ValueError("widths=[]: give the width of one stage or more, such as [32,64]")
        in_channels = widths[0]
        layers: list[nn.Module] = [
            nn.Conv2d(image_shape[0], in_channels, 3, stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
        ]
        for stage, out_channels in enumerate(widths):
            for block in range(depth):
                drop = stochastic_depth * (stage * depth + block + 1) / (len(widths) * depth)
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(ResidualBlock(in_channels, out_channels, stride, drop))
                in_channels = out_channels
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), Dropout(dropout), nn.Linear(in_channels, num_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

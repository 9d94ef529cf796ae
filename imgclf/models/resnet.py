"""A compact residual network for small images."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from imgclf.models.layers import Dropout
from imgclf.models.network import Network, check_whole, check_widths


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation beside a shortcut (He et al. 2016, "basic block")."""

    def __init__(self, before: int, after: int, stride: int, drop: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        self.drop = StochasticDepth(drop, "row")
        self.shortcut = nn.Sequential()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.drop(self.norm2(self.conv2(y))) + self.shortcut(x), inplace=True)


class ResNet(Network):
    """A 3x3 stem, stages of residual blocks each of half the resolution of the one before, global average, logits.

    Args:
        image_shape: channels, height, width.
        num_classes: number of logits.
        widths: filters of each stage; the first stage keeps the resolution.
        depth: residual blocks a stage.
        stem_stride: of the stem; 2 halves large images at once.
        dropout: before the last layer.
        stochastic_depth: probability that the last block is left out for an image in training; it rises to that
            linearly from the first block on (Huang et al. 2016).
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        widths: Sequence[int] = (16, 32, 64),
        depth: int = 1,
        stem_stride: int = 1,
        dropout: float = 0.0,
        stochastic_depth: float = 0.0,
    ) -> None:
        super().__init__()
        check_widths("widths", widths)
        if not widths:
            raise ValueError("model.widths=[]: give the width of one stage or more, such as [32,64]")
        if not isinstance(stochastic_depth, int | float) or not 0 <= stochastic_depth < 1:
            raise ValueError(
                f"model.stochastic_depth={stochastic_depth}: give a probability from 0 up to, not including, 1"
            )
        check_whole("depth", depth)
        check_whole("stem_stride", stem_stride)
        layers: list[nn.Module] = [
            nn.Conv2d(image_shape[0], widths[0], 3, stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        before = widths[0]
        for stage, after in enumerate(widths):
            for block in range(depth):
                drop = stochastic_depth * (stage * depth + block + 1) / (len(widths) * depth)
                layers.append(ResidualBlock(before, after, stride=2 if stage and not block else 1, drop=drop))
                before = after
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), Dropout(dropout), nn.Linear(before, num_classes)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

"""The multi-layer perceptron."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from imgclf.core.validation import Positive, Rate, Widths, checked
from imgclf.models.network import Dropout, Network


class MLP(Network):
    """Flattens the pixels and applies ``hidden`` layers, each with ReLU and dropout, then a last linear layer."""

    @checked
    def __init__(
        self,
        image_shape: Sequence[Positive] = (1, 28, 28),
        num_classes: Positive = 10,
        hidden: Widths = (128, 64),
        dropout: Rate = 0.0,
    ) -> None:
        super().__init__()
        features = math.prod(image_shape)
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(features, width), nn.ReLU(inplace=True), Dropout(dropout)]
            features = width
        self.layers = nn.Sequential(*layers, nn.Linear(features, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

"""The multi-layer perceptron."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from imgclf.models.layers import Dropout
from imgclf.models.network import Network, check_widths


class MLP(Network):
    """Flattened pixels, hidden layers with ReLU, logits. The defaults are the small Fashion-MNIST project's 128-64.

    Args:
        image_shape: channels, height, width.
        num_classes: number of logits.
        hidden: widths of the hidden layers.
        dropout: after every hidden layer.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_widths("hidden", hidden)
        widths = [math.prod(image_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in zip(widths, hidden, strict=False):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True), Dropout(dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

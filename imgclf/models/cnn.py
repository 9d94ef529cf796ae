"""The small convolutional network."""

from collections.abc import Sequence

from torch import Tensor, nn

from imgclf.models.layers import Dropout
from imgclf.models.network import Network, check_whole, check_widths


class CNN(Network):
    """Blocks of convolutions, 2x2 max pooling and ReLU, then dropout and dense layers.

    The defaults are the small MNIST projects' network: 3x3 convolutions of 32 and 64 filters, dropout 0.5.

    Args:
        image_shape: channels, height, width.
        num_classes: number of logits.
        channels: filters of each block.
        depth: convolutions in each block; the pooling follows the first.
        kernel_size: side of the filters.
        padding: pixels around each convolution's input.
        hidden: widths of dense layers before the last one.
        dropout: before the first dense layer.
        batch_norm: normalise after each convolution.

    Raises:
        ValueError: the image is too small for that many blocks.
    """

    def __init__(
        self,
        image_shape: Sequence[int] = (1, 28, 28),
        num_classes: int = 10,
        channels: Sequence[int] = (32, 64),
        depth: int = 1,
        kernel_size: int = 3,
        padding: int = 0,
        hidden: Sequence[int] = (),
        dropout: float = 0.5,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_widths("channels", channels)
        check_widths("hidden", hidden)
        check_whole("depth", depth)
        check_whole("kernel_size", kernel_size)
        check_whole("padding", padding, least=0)
        before, height, width = image_shape
        blocks: list[nn.Module] = []
        for after in channels:
            for place in range(depth):
                height, width = (side + 2 * padding - kernel_size + 1 for side in (height, width))
                blocks.append(nn.Conv2d(before, after, kernel_size, padding=padding, bias=not batch_norm))
                if place == 0:
                    # Pooling first changes nothing (ReLU keeps order) and leaves a quarter of the values to the rest.
                    height, width = height // 2, width // 2
                    blocks.append(nn.MaxPool2d(2))
                if min(height, width) < 1:
                    raise ValueError(
                        f"model.channels={list(channels)}: too many blocks for {tuple(image_shape)} images"
                    )
                blocks += [*([nn.BatchNorm2d(after)] if batch_norm else []), nn.ReLU(inplace=True)]
                before = after
        widths = [before * height * width, *hidden]
        dense = [
            layer for a, b in zip(widths, hidden, strict=False) for layer in (nn.Linear(a, b), nn.ReLU(inplace=True))
        ]
        self.layers = nn.Sequential(*blocks, nn.Flatten(), Dropout(dropout), *dense, nn.Linear(widths[-1], num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)

"""The base of every network."""

from torch import nn

from imgclf.core.rebuild import Rebuildable


class Network(Rebuildable, nn.Module):
    """An nn.Module that a checkpoint can rebuild.

    The constructor of a subclass takes ``image_shape`` (channels, height, width) and ``num_classes``, then arguments of
    its own. All are numbers, strings or lists of these, because a checkpoint keeps nothing else. ``forward`` maps float
    images (N, C, H, W) to logits (N, num_classes). For data of two classes, ``num_classes`` is 1: the only logit is the
    second class's.

    Example:
        >>> class Linear(Network):
        ...     def __init__(self, image_shape=(1, 28, 28), num_classes=10):
        ...         super().__init__()
        ...         self.layers = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), num_classes))
        ...
        ...     def forward(self, images):
        ...         return self.layers(images)
    """

    def begin_epoch(self, epoch: int) -> None:
        """Is called in training mode before each epoch of training, counted from 0.

        It is called once more when training starts, or is resumed in the middle of an epoch.
        """

"""The base of every network."""

from lightning.pytorch.core.mixins import HyperparametersMixin
from torch import nn


class Network(HyperparametersMixin, nn.Module):
    """An nn.Module that a checkpoint can rebuild: call ``self.save_hyperparameters()`` first in ``__init__``.

    The constructor takes ``image_shape`` (channels, height, width) and ``num_classes``, then arguments of its own,
    numbers, strings and lists only; ``forward`` maps float (N, C, H, W) to logits (N, num_classes).
    """

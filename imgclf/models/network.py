"""The base of every network."""

from collections.abc import Sequence

from torch import nn

from imgclf.core.rebuild import Rebuildable

LARGEST = 1000


class Network(Rebuildable, nn.Module):
    """An nn.Module that a checkpoint can rebuild.

    The constructor takes ``image_shape`` (channels, height, width) and ``num_classes``, then arguments of its own,
    numbers, strings and lists only; ``forward`` maps float (N, C, H, W) to logits (N, num_classes). Of two classes
    ``num_classes`` is 1: the logit of the second.
    """

    def begin_epoch(self, epoch: int) -> None:
        """Called in training mode before each epoch of training, counted from 0."""


def check_widths(name: str, widths: Sequence[int]) -> None:
    """Raises ValueError unless ``widths`` lists positive whole numbers; ``name`` is the option they come from."""
    listed = isinstance(widths, list | tuple)
    if not listed or not all(isinstance(width, int) and width > 0 for width in widths):
        raise ValueError(f"model.{name}={widths}: list whole numbers from 1 up, as in model.{name}=[128,64]")


def check_whole(name: str, value: int, least: int = 1) -> None:
    """Raises ValueError unless ``model.name`` is a whole number from ``least`` up, and not so large that nothing
    holds it."""
    if not isinstance(value, int) or not least <= value <= LARGEST:
        raise ValueError(f"model.{name}={value}: give a whole number from {least} to {LARGEST}")

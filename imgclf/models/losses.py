"""The loss that a network is trained with."""

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def build_loss(factory: Callable[..., nn.Module], class_weights: Sequence[float] | None = None) -> nn.Module:
    """Builds the training loss, as ``Classifier`` describes it, from its class or a partial of it.

    The class gets ``class_weights``, one number for each class, as ``weight``.

    Raises:
        ValueError: there are class weights, and the loss takes no ``weight``.
    """
    if class_weights is None:
        return factory()
    if "weight" not in inspect.signature(factory).parameters:
        name = getattr(factory, "func", factory).__name__
        raise ValueError(f"balance=weighted_loss: {name} takes no weight for each class; use balance=sampler")
    return factory(weight=torch.tensor(class_weights, dtype=torch.float32))


def without_state(loss: nn.Module) -> nn.Module:
    """Returns the loss after its buffers are made non-persistent: a checkpoint is for prediction, which needs no loss.

    Raises:
        ValueError: the loss has parameters, which no checkpoint would keep, or its ``label_smoothing`` is out of range.
    """
    if list(loss.parameters()):
        raise ValueError(f"loss={type(loss).__name__}: it has parameters; only a loss without parameters can be used")
    # torch checks this only in the first step, and allows 1, with which there is nothing to learn.
    smoothing = getattr(loss, "label_smoothing", 0.0)
    if not isinstance(smoothing, int | float) or not 0 <= smoothing < 1:
        raise ValueError(f"label_smoothing={smoothing}: give a number from 0 up to, not including, 1")
    for module in loss.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(name, buffer, persistent=False)
    return loss


def share_of_weight(loss: nn.Module, labels: Tensor, world_size: int) -> float | Tensor:
    """The factor that makes the mean of the processes' losses equal to the loss of all their images.

    Cross-entropy divides the loss of a batch by the sum of its images' class weights, and DDP averages over processes.
    Without this factor, an image would count more in a process whose other images weigh less. Other losses have a
    factor of 1. All processes have to call this function, each with the labels, int64 (N,), of its own images.
    """
    if not isinstance(loss, nn.CrossEntropyLoss) or loss.weight is None:
        return 1.0
    own = loss.weight[labels].sum()
    total = own.clone()
    torch.distributed.all_reduce(total)
    return own * world_size / total

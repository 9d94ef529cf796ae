"""Temperature scaling: one number, chosen on validation images, by which the logits are divided."""

import logging
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from imgclf.checkpoints.files import AtomicCheckpointIO, read_checkpoint
from imgclf.data.datamodule import ImageDataModule
from imgclf.inference.load import load

LARGEST = 100.0  # temperatures from 1 / LARGEST up to this are tried
NAME = "temperature"

log = logging.getLogger(__name__)


def check_labels(labels: Tensor) -> None:
    """Raises ValueError if a temperature cannot be chosen on images of these classes, int64 (N,)."""
    if len(labels.unique()) < 2:
        what = f"{len(labels)} images of one class" if len(labels) else "no images"
        raise ValueError(f"temperature=validation: the validation split has {what}: give a number instead, such as 1")


def choose_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature of the lowest cross-entropy (Guo et al. 2017); 1 if no other lowers it.

    Args:
        logits: float (N, classes).
        labels: the true classes, int64 (N,).

    Raises:
        ValueError: there are no images, or all are of one class.

    Example:
        >>> choose_temperature(logits, labels)  # above 1: the network was too sure of itself
        2.3
    """
    from scipy.optimize import minimize_scalar  # lazy: scipy takes a while to import

    check_labels(labels)
    logits = logits.double()

    def loss(logarithm: float) -> float:
        return float(F.cross_entropy(logits / math.exp(logarithm), labels))

    limit = math.log(LARGEST)
    best = float(minimize_scalar(loss, bounds=(-limit, limit), method="bounded").x)
    return math.exp(best) if loss(best) < loss(0) else 1.0


def calibrate_best(path: Path, data: ImageDataModule, device: torch.device, moves_threshold: bool = False) -> None:
    """Chooses the temperature of a checkpoint on the validation images, and writes it into the file.

    A checkpoint that has a temperature already is left as it is.

    Args:
        path: of the checkpoint.
        data: what it was trained on.
        device: where the logits are computed.
        moves_threshold: whether the threshold changes with the probabilities, so that the predicted classes stay the
            same. This is right for a threshold that was chosen on validation.
    """
    predictor, checkpoint = load(path, device), read_checkpoint(path)
    weights = checkpoint["state_dict"]
    if float(weights.get(NAME, 1)) != 1:
        return
    logits = torch.cat([predictor.logits(images) for images, _ in data.eval_dataloader("val")])
    labels = data.eval_dataset("val").targets
    temperature = choose_temperature(logits, labels)
    weights[NAME] = torch.tensor(temperature)
    if moves_threshold:
        weights["threshold"] = (weights["threshold"].logit() / temperature).sigmoid()
    AtomicCheckpointIO().save_checkpoint(checkpoint, path)
    before, after = (float(F.cross_entropy(logits / value, labels)) for value in (1, temperature))
    log.info("temperature %.3f, chosen on validation: val/loss %.4f instead of %.4f", temperature, after, before)

"""Evaluates a predictor on a split. The end of training and evaluate.py both use this one function."""

import logging
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from imgclf.core.metrics import classification_metrics, decide, many_class_metrics
from imgclf.core.text import some_names
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset
from imgclf.inference.predictor import Predictor

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A split with a predictor's answers to it."""

    split: str
    images: ImageDataset  # the N images that the network saw
    labels: Tensor  # the true classes, int64 (N,)
    losses: Tensor  # the cross-entropy of each image, float32 (N,)
    probabilities: Tensor  # float32 (N, classes)
    threshold: float  # for two classes, the probability from which the second is predicted
    names: list[str]  # what each image is called: a file's path, or the image's index in the split

    @property
    def num_classes(self) -> int:
        return self.probabilities.shape[1]

    @cached_property
    def predicted(self) -> Tensor:
        """The predicted classes, int64 (N,)."""
        return decide(self.probabilities, self.threshold)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The name of every metric, such as "test/accuracy", to its value; the loss comes first."""
        values = self.metrics_of(torch.arange(len(self.labels)))
        if self.num_classes > 2:
            more = many_class_metrics(self.probabilities, self.labels)
            values |= {f"{self.split}/{name}": value for name, value in more.items()}
        return {name: float(value) for name, value in values.items()}

    def metrics_of(self, rows: Tensor) -> dict[str, Tensor]:
        """Computes ``metrics`` for the images with these indices, int64. An index that occurs twice counts twice.

        ``MANY_CLASS_METRICS`` are left out: sorting the scores of every class takes too long for a thousand resamples.
        """
        scores = self.probabilities[rows, 1] if self.num_classes == 2 else None
        values = classification_metrics(self.predicted[rows], self.labels[rows], self.num_classes, scores)
        return {f"{self.split}/{name}": value for name, value in {"loss": self.losses[rows].mean(), **values}.items()}

    def confusion_matrix(self) -> Tensor:
        """Counts, int64 (classes, classes): a row for each true class, a column for each predicted class."""
        return multiclass_confusion_matrix(self.predicted, self.labels, self.num_classes, validate_args=False)


def evaluate(predictor: Predictor, data: ImageDataModule, split: str) -> Evaluation:
    """Evaluates a predictor on the split "train", "val" or "test" of data, without augmentation.

    Raises:
        ValueError: the images have another shape than the checkpoint's, or the classes are others in number or come in
            another order.

    Example:
        >>> evaluate(load("best.ckpt"), Digits(), "test").metrics["test/accuracy"]
    """
    _check_class_names(list(data.class_names), predictor.class_names)
    images = data.eval_dataset(split)
    logits = torch.cat([predictor.logits(batch) for batch, _ in data.eval_dataloader(split)])
    return Evaluation(
        split=split,
        images=images,
        labels=images.targets,
        losses=F.cross_entropy(logits, images.targets, reduction="none"),
        probabilities=logits.softmax(1),
        threshold=predictor.threshold,
        names=data.image_names(split),
    )


def _check_class_names(names: list[str], known: list[str]) -> None:
    given, expected = some_names(names), some_names(known)
    if len(names) != len(known):
        raise ValueError(
            f"the data has {len(names)} classes ({given}), the checkpoint {len(known)} ({expected}): evaluate it on "
            "data of the same classes"
        )
    if names != known and set(names) == set(known):
        raise ValueError(
            f"the data's classes ({given}) come in another order than the checkpoint's ({expected}): positive=NAME "
            "puts the class to be detected last"
        )
    if names != known:
        message = "the data's classes (%s) have other names than the checkpoint's (%s): they are compared by number"
        log.warning(message, given, expected)

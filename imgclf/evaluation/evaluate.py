"""Evaluates a predictor on a split: metrics, predictions and the tables and figures made of them."""

import logging
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from imgclf.core import rng
from imgclf.core.metrics import EpochMetrics, count_metrics, decide, score_metrics
from imgclf.core.text import some_names
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset
from imgclf.inference.predictor import Predictor

log = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """A split with a predictor's answers.

    Attributes:
        split: its name.
        images: the split as the network saw it, uint8.
        labels: int64 (N,).
        losses: float32 (N,).
        probabilities: float32 (N, classes).
        threshold: of two classes, the probability from which the second is predicted.
        names: of the images, N.
        metrics: "split/name" to value.
    """

    split: str
    images: ImageDataset
    labels: Tensor
    losses: Tensor
    probabilities: Tensor
    threshold: float
    names: list[str]
    metrics: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        metrics = EpochMetrics(self.split, self.probabilities.shape[1])
        metrics.update(self.losses, self.probabilities, self.labels)
        self.metrics = {name: float(value) for name, value in metrics.compute(self.threshold).items()}

    def intervals(self, resamples: int = 1000) -> dict[str, tuple[float, float]]:
        """Name to the bounds of the metric's bootstrap 95% interval (percentiles; Efron 1979), over images."""
        count, classes = self.probabilities.shape
        cells, generator, values = self.labels * classes + self.predicted, rng.generator("bootstrap"), []
        present = self.labels.unique()
        for _ in range(resamples):
            rows = torch.randint(count, (count,), generator=generator)
            if classes == 2 and len(self.labels[rows].unique()) < len(present):
                continue  # what is asked of both classes is undefined there
            confusion = torch.bincount(cells[rows], minlength=classes**2).view(classes, classes)
            drawn = {"loss": self.losses[rows].mean(), **count_metrics(confusion)}
            if classes == 2:
                drawn |= score_metrics(self.probabilities[rows, 1], self.labels[rows])
            values.append(drawn)
        bounds = torch.tensor([0.025, 0.975], dtype=torch.float64)
        return {
            name: tuple(
                torch.stack([drawn[name.partition("/")[2]] for drawn in values]).double().quantile(bounds).tolist()
            )
            for name in self.metrics
        }

    @property
    def predicted(self) -> Tensor:
        """int64 (N,)."""
        return decide(self.probabilities, self.threshold)

    def confusion(self) -> Tensor:
        """int64 (classes, classes): rows are true, columns predicted classes."""
        classes = self.probabilities.shape[1]
        return torch.bincount(self.labels * classes + self.predicted, minlength=classes**2).view(classes, classes)


def evaluate(predictor: Predictor, data: ImageDataModule, split: str) -> Evaluation:
    """Evaluates on the split's un-augmented images.

    Raises:
        ValueError: the data has images of another shape, or other classes or the same in another order, than the
            checkpoint.
    """
    names = list(data.class_names)
    if len(names) != len(predictor.class_names):
        raise ValueError(
            f"the data has {len(names)} classes ({some_names(names)}), the checkpoint {len(predictor.class_names)} "
            f"({some_names(predictor.class_names)}): evaluate it on data of the same classes"
        )
    if names != predictor.class_names and set(names) == set(predictor.class_names):
        raise ValueError(
            f"the data's classes ({some_names(names)}) come in another order than the checkpoint's "
            f"({some_names(predictor.class_names)}): data.positive names the one to be detected"
        )
    if names != predictor.class_names:
        log.warning(
            "the data's classes (%s) have other names than the checkpoint's (%s); they are compared by number",
            some_names(names),
            some_names(predictor.class_names),
        )
    images = data.eval_dataset(split)
    logits = torch.cat([predictor.logits(batch) for batch, _ in data.eval_dataloader(split)])
    losses = F.cross_entropy(logits, images.targets, reduction="none")
    probabilities = logits.softmax(1)
    return Evaluation(
        split, images, images.targets, losses, probabilities, predictor.threshold, data.image_names(split)
    )

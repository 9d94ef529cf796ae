"""The metrics of a stage or split, by torchmetrics."""

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import CatMetric, MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_recall,
    binary_specificity,
)

METRICS = ("loss", "accuracy", "precision", "recall", "f1", "kappa")
BINARY_METRICS = ("auroc", "average_precision", "sensitivity", "specificity", "calibration_error")
LOWER_IS_BETTER = ("loss", "calibration_error")


def decide(probabilities: Tensor, threshold: float | Tensor = 0.5) -> Tensor:
    """int64 (N,) of float (N, classes): the most probable class; of two, the second from ``threshold`` on."""
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= threshold).long()
    return probabilities.argmax(1)


def youden_threshold(scores: Tensor, labels: Tensor) -> float:
    """The threshold of the largest sensitivity + specificity (Youden 1950), half way to the next lower score.

    Args:
        scores: float (N,), probabilities of the positive class.
        labels: int64 (N,), 0 or 1, both present.
    """
    from sklearn.metrics import roc_curve

    false_rate, true_rate, thresholds = roc_curve(labels.cpu(), scores.double().cpu(), drop_intermediate=False)
    best = int(np.argmax(true_rate - false_rate))
    if best == 0:  # no score tells the classes apart
        return 0.5
    below = thresholds[best + 1] if best + 1 < len(thresholds) else 0.0
    return float(thresholds[best] + below) / 2


class StageMetrics(nn.Module):
    """Mean loss, accuracy, macro precision, recall and F1, and Cohen's kappa, accumulated on the device.

    Of two classes the second is the positive one; they add the area under the ROC curve, average precision,
    sensitivity, specificity and the expected calibration error (15 bins) of the positive class's probability.

    A class that appears neither among labels nor predictions is left out of the macro averages, and 0/0 counts
    as 0: scikit-learn's convention.

    Args:
        stage: "train", "val" or "test", which prefixes the names.
        num_classes: at least 2.
    """

    def __init__(self, stage: str, num_classes: int) -> None:
        super().__init__()
        options = {"num_classes": num_classes, "validate_args": False}
        self.counts = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(average="micro", **options),
                "precision": MulticlassPrecision(average="macro", **options),
                "recall": MulticlassRecall(average="macro", **options),
                "f1": MulticlassF1Score(average="macro", **options),
                "kappa": MulticlassCohenKappa(**options),
            },
        )
        self.loss = MeanMetric(nan_strategy="disable")
        if num_classes == 2:
            self.scores, self.labels = CatMetric(nan_strategy="ignore"), CatMetric(nan_strategy="ignore")
        self.stage, self.binary = stage, num_classes == 2

    def update(self, losses: Tensor, probabilities: Tensor, labels: Tensor) -> None:
        """Adds images: losses, float (N,), probabilities, float (N, classes), and true classes, int64 (N,)."""
        self.loss.update(losses)
        if self.binary:
            self.scores.update(probabilities[:, 1])
            self.labels.update(labels)
        else:
            self.counts.update(decide(probabilities), labels)

    def answers(self) -> tuple[Tensor, Tensor]:
        """Of two classes: the positive one's probabilities, float (N,), and the labels, int64 (N,), so far."""
        return self.scores.compute().flatten(), self.labels.compute().flatten().long()

    def compute(self, threshold: float | Tensor = 0.5) -> dict[str, Tensor]:
        """Name to float32 scalar, loss first; starts anew."""
        values = {"loss": self.loss.compute()}
        binary = {}
        if self.binary:
            scores, labels = self.answers()
            predicted = (scores >= threshold).long()
            self.counts.update(predicted, labels)
            binary = {
                "auroc": binary_auroc(scores, labels, validate_args=False),
                "average_precision": binary_average_precision(scores, labels, validate_args=False),
                "sensitivity": binary_recall(predicted, labels, validate_args=False),
                "specificity": binary_specificity(predicted, labels, validate_args=False),
                "calibration_error": binary_calibration_error(scores, labels, validate_args=False),
            }
            self.scores.reset()
            self.labels.reset()
        values |= {**self.counts.compute(), **binary}
        # A network that puts everything into the only class there is agrees by chance alone: kappa 0, not NaN.
        values["kappa"] = torch.nan_to_num(values["kappa"])
        self.loss.reset()
        self.counts.reset()
        return {f"{self.stage}/{name}": value for name, value in values.items()}

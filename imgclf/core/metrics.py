"""The metrics of a stage or split, by torchmetrics."""

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import CatMetric, MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix
from torchmetrics.functional.classification import binary_auroc, binary_average_precision, binary_calibration_error

from imgclf.core.names import BINARY_METRICS, METRICS


def decide(probabilities: Tensor, threshold: float | Tensor = 0.5) -> Tensor:
    """int64 (N,) of float (N, classes): the most probable class; of two, the second from ``threshold`` on.

    Of more than two classes, logits will do.
    """
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


def count_metrics(confusion: Tensor) -> dict[str, Tensor]:
    """Metrics of decisions, name to float64 scalar on the CPU: accuracy, macro precision, recall and F1, Cohen's kappa.

    A class that appears neither among labels nor predictions is left out of the macro averages, and 0/0 counts as 0:
    scikit-learn's convention. Of two classes the second is the positive one, whose sensitivity and specificity join.

    Args:
        confusion: counts (classes, classes); rows are true, columns predicted classes.
    """
    confusion = confusion.cpu().double()
    total, hits, true, predicted = confusion.sum(), confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    occurring = true + predicted > 0
    recalls = hits / true.clamp_min(1)
    accuracy, chance = hits.sum() / total, true @ predicted / total**2
    values = {
        "accuracy": accuracy,
        "precision": (hits / predicted.clamp_min(1))[occurring].mean(),
        "recall": recalls[occurring].mean(),
        "f1": (2 * hits / (true + predicted).clamp_min(1))[occurring].mean(),
        # A network that puts everything into the only class there is agrees by chance alone: kappa 0, not NaN.
        "kappa": torch.nan_to_num((accuracy - chance) / (1 - chance)),
    }
    return values | ({"sensitivity": recalls[1], "specificity": recalls[0]} if len(confusion) == 2 else {})


def score_metrics(scores: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Metrics of the positive class's probabilities: areas under the ROC and precision-recall curves, and the
    expected calibration error (15 bins).

    Args:
        scores: float (N,) in [0, 1].
        labels: int64 (N,), 0 or 1.
    """
    return {
        "auroc": binary_auroc(scores, labels, validate_args=False).clamp_max(1),  # a sum that rounds up
        "average_precision": binary_average_precision(scores, labels, validate_args=False),
        "calibration_error": binary_calibration_error(scores, labels, validate_args=False),
    }


class EpochMetrics(nn.Module):
    """Mean loss, ``count_metrics`` and, of two classes, ``score_metrics``, accumulated on the device.

    Of several processes, each counts its own images, and ``compute`` and ``answers`` are of all of them: torchmetrics
    adds up what it counted, and gathers scores in the order of the processes. All have to ask then.

    Args:
        stage: "train", "val" or "test", which prefixes the names.
        num_classes: at least 2.

    Attributes:
        counted: the confusion matrix that ``compute`` last counted, (classes, classes), rows are true classes; or None.
        last_scores_and_labels: of two classes, what ``answers`` was then; else None.
    """

    confusion_matrix: Tensor | None = None
    last_scores_and_labels: tuple[Tensor, Tensor] | None = None

    def __init__(self, stage: str, num_classes: int) -> None:
        super().__init__()
        self.loss = MeanMetric(nan_strategy="disable")
        self.confusion = MulticlassConfusionMatrix(num_classes, validate_args=False)
        if num_classes == 2:  # its confusion matrix is counted from the scores: those are of all processes already
            self.scores, self.labels = CatMetric(nan_strategy="ignore"), CatMetric(nan_strategy="ignore")
        for metric in self.children():
            metric.persistent(True)  # pyrefly: ignore[not-callable]  # part of state_dict, for a checkpoint within an epoch
        self.stage, self.binary = stage, num_classes == 2

    def update(self, losses: Tensor, probabilities: Tensor, labels: Tensor) -> None:
        """Adds images.

        Args:
            losses: float (N,).
            probabilities: float (N, classes); of more than two classes, logits will do.
            labels: int64 (N,), the true classes.
        """
        self.loss.update(losses)
        if self.binary:  # the threshold may be chosen once all are there
            self.scores.update(probabilities[:, 1])
            self.labels.update(labels)
        else:
            self.confusion.update(decide(probabilities), labels)

    def scores_and_labels(self) -> tuple[Tensor, Tensor]:
        """Of two classes: the positive one's probabilities, float (N,), and the labels, int64 (N,), so far."""
        return self.scores.compute().flatten(), self.labels.compute().flatten().long()

    def compute(self, threshold: float | Tensor = 0.5) -> dict[str, Tensor]:
        """Name to scalar, loss first; starts anew."""
        values = {"loss": self.loss.compute()}
        if self.binary:
            self.last_scores_and_labels = scores, labels = self.scores_and_labels()
            values |= score_metrics(scores, labels)
            self.confusion_matrix = torch.bincount(2 * labels + (scores >= threshold), minlength=4).view(2, 2)
            self.scores.reset()
            self.labels.reset()
        else:
            self.confusion_matrix = self.confusion.compute()
        values |= count_metrics(self.confusion_matrix)
        self.loss.reset()
        self.confusion.reset()
        names = METRICS + (BINARY_METRICS if self.binary else ())
        return {f"{self.stage}/{name}": values[name].float() for name in names}

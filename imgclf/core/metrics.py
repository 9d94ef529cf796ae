"""The metrics of a stage or a split. torchmetrics computes those that ``imgclf.core.names.METRIC_TABLE`` lists."""

import math

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import CatMetric, MeanMetric
from torchmetrics.functional import classification as functional

from imgclf.core.names import CALIBRATION_BINS, METRIC_TABLE, TOP5_FROM


def decide(probabilities: Tensor, threshold: float | Tensor = 0.5) -> Tensor:
    """Predicts a class for each image.

    Args:
        probabilities: float (N, classes). For more than two classes, logits give the same answer.
        threshold: used for two classes only: the second class is predicted if its probability is at least this.

    Returns:
        int64 (N,): for more than two classes, the most probable class.
    """
    if probabilities.shape[1] == 2:
        return (probabilities[:, 1] >= threshold).long()
    return probabilities.argmax(1)


def youden_threshold(scores: Tensor, labels: Tensor) -> float:
    """The threshold with the largest sensitivity + specificity (Youden 1950).

    The threshold lies half way between two neighbouring scores. It is 0.5 if no score separates the classes,
    or only one of them occurs.

    Args:
        scores: float (N,), probabilities of the positive class.
        labels: int64 (N,), 0 or 1.
    """
    from sklearn.metrics import roc_curve  # lazy: scikit-learn takes a second to import, and few runs need it

    if len(labels.unique()) < 2:
        return 0.5
    false_rate, true_rate, thresholds = roc_curve(labels.cpu(), scores.double().cpu(), drop_intermediate=False)
    best = int(np.argmax(true_rate - false_rate))
    if best == 0:  # the first point of the curve predicts no image as positive
        return 0.5
    below = thresholds[best + 1] if best + 1 < len(thresholds) else 0.0
    return float(thresholds[best] + below) / 2


def classification_metrics(
    predicted: Tensor, labels: Tensor, num_classes: int, scores: Tensor | None = None
) -> dict[str, Tensor]:
    """Computes every metric of ``METRIC_TABLE`` that is defined for this number of classes.

    A macro average leaves out the classes that occur neither among the labels nor among the predictions; a class that
    lacks one of the two counts as 0, as in scikit-learn. A metric that is undefined, because a class that it needs has
    no images, is NaN. "calibration_error" is that of the predicted class, in 15 bins (Guo et al. 2017).

    Args:
        predicted: int64 (N,), the predicted classes.
        labels: int64 (N,), the true classes.
        num_classes: at least 2. The second of two classes is the positive one.
        scores: float (N,) in [0, 1], the positive class's probabilities. They are needed for two classes only.

    Returns:
        Name to float scalar, on the device of the arguments.

    Example:
        >>> classification_metrics(torch.tensor([0, 1, 2]), torch.tensor([0, 2, 2]), num_classes=3)["accuracy"]
        tensor(0.6667)
    """
    values = {}
    for name, metric in METRIC_TABLE.items():
        if metric.binary and num_classes != 2:
            continue
        options = {**metric.options, **({} if metric.binary else {"num_classes": num_classes})}
        if any(not (labels == label).any() for label in metric.needs):
            values[name] = torch.full((), math.nan, device=labels.device)
            continue
        answers, truth = scores if metric.takes_scores else predicted, labels
        if metric.takes_confidence and scores is not None:
            answers, truth = torch.where(predicted == 1, scores, 1 - scores), (predicted == labels).long()
        value = getattr(functional, metric.function)(answers, truth, validate_args=False, **options)
        values[name] = value.clamp_max(1)  # rounding may lift an area, which is a sum, above 1
    return values


def many_class_metrics(probabilities: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Computes what more than two classes have besides ``classification_metrics``: ``MANY_CLASS_METRICS``.

    "auroc" is the macro average of one class against the rest, over the classes that have images; it is NaN if all
    images are of one class. "calibration_error" is that of the most probable class, in 15 bins (Guo et al. 2017).
    "top5_accuracy" is computed for ``TOP5_FROM`` classes or more.

    Args:
        probabilities: float (N, classes).
        labels: int64 (N,), the true classes.
    """
    classes = probabilities.shape[1]
    options = {"num_classes": classes, "validate_args": False}
    present = labels.unique().tolist()
    areas = [
        functional.binary_auroc(probabilities[:, label], (labels == label).long(), validate_args=False)
        for label in (present if len(present) > 1 else ())
    ]
    area = torch.stack(areas).mean() if areas else torch.tensor(math.nan)
    error = functional.multiclass_calibration_error(probabilities, labels, n_bins=CALIBRATION_BINS, **options)
    values = {"auroc": area.clamp_max(1), "calibration_error": error}
    if classes >= TOP5_FROM:
        top5 = functional.multiclass_accuracy(probabilities, labels, top_k=5, average="micro", **options)
        values["top5_accuracy"] = top5
    return values


def accuracy_by_coverage(correct: Tensor, confidence: Tensor) -> Tensor:
    """Computes the accuracy of the k most confident answers for every k from 1 to N: float64 (N,).

    A network that abstains when it is unsure gives only these answers. The arguments say of each answer whether it is
    right, bool (N,), and how confident it is, float (N,).
    """
    order = confidence.argsort(descending=True, stable=True)
    return correct[order].double().cumsum(0) / torch.arange(1, len(order) + 1)


class EpochMetrics(nn.Module):
    """The mean loss and the ``classification_metrics`` of an epoch.

    An update only stores answers, on their device, because it runs beside training steps of a millisecond. Where
    several processes train, each stores the answers for its own images. ``compute`` and ``scores_and_labels`` then
    gather the answers of all processes, so that every process has to call them.

    Args:
        stage: "train", "val" or "test". It becomes the first part of every metric's name.
        num_classes: at least 2.

    Attributes:
        confusion_matrix: counts of the last ``compute``, int64 (classes, classes): a row for each true class, a column
            for each predicted class. None before.
        last_scores_and_labels: for two classes, the ``scores_and_labels`` of the last ``compute``. Else None.

    Example:
        >>> metrics = EpochMetrics("val", num_classes=10)
        >>> metrics.update(losses, probabilities, labels)
        >>> metrics.compute()["val/accuracy"]
    """

    confusion_matrix: Tensor | None = None
    last_scores_and_labels: tuple[Tensor, Tensor] | None = None

    def __init__(self, stage: str, num_classes: int) -> None:
        super().__init__()
        self.stage, self.num_classes = stage, num_classes
        # The search for NaN is off because it makes a GPU wait at every update.
        self.loss = MeanMetric(nan_strategy="disable")
        # For two classes the scores of the positive class, for more the predicted classes.
        self.answers = CatMetric(nan_strategy="disable")
        self.labels = CatMetric(nan_strategy="disable")

    def update(self, losses: Tensor, probabilities: Tensor, labels: Tensor) -> None:
        """Adds images.

        Args:
            losses: float (N,).
            probabilities: float (N, classes). For more than two classes, logits give the same metrics.
            labels: int64 (N,), the true classes.
        """
        self.loss.update(losses)
        # The threshold between two classes may be chosen only after all scores are known.
        self.answers.update(probabilities[:, 1] if self.num_classes == 2 else decide(probabilities))
        self.labels.update(labels)

    def scores_and_labels(self) -> tuple[Tensor, Tensor]:
        """The positive class's probabilities, float (N,), and the labels, int64 (N,), of all images so far.

        For more than two classes, the predicted classes take the place of the probabilities.
        """
        return self.answers.compute().flatten(), self.labels.compute().flatten().long()

    def compute(self, threshold: float | Tensor = 0.5) -> dict[str, Tensor]:
        """Returns "stage/name" to float scalar, the loss first, and forgets the images.

        Args:
            threshold: for two classes, the probability from which the second is predicted.
        """
        answers, labels = self.scores_and_labels()
        if self.num_classes == 2:
            self.last_scores_and_labels = answers, labels
            scores, predicted = answers, (answers >= threshold).long()
        else:
            scores, predicted = None, answers.long()
        self.confusion_matrix = functional.multiclass_confusion_matrix(
            predicted, labels, self.num_classes, validate_args=False
        )
        values = {"loss": self.loss.compute(), **classification_metrics(predicted, labels, self.num_classes, scores)}
        for metric in (self.loss, self.answers, self.labels):
            metric.reset()
        return {f"{self.stage}/{name}": value for name, value in values.items()}

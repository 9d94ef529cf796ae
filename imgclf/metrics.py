"""The metrics of a stage or split, by torchmetrics."""

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCohenKappa,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

METRICS = ("loss", "accuracy", "precision", "recall", "f1", "kappa")


class StageMetrics(nn.Module):
    """Mean loss, accuracy, macro precision, recall and F1, and Cohen's kappa, accumulated on the device.

    A class that appears neither among labels nor predictions is left out of the macro averages, and 0/0 counts
    as 0: scikit-learn's convention.

    Args:
        stage: "train", "val" or "test", which prefixes the names.
        num_classes: at least 2.
    """

    def __init__(self, stage: str, num_classes: int) -> None:
        super().__init__()
        options = {"num_classes": num_classes, "validate_args": False}
        self.scores = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(average="micro", **options),
                "precision": MulticlassPrecision(average="macro", **options),
                "recall": MulticlassRecall(average="macro", **options),
                "f1": MulticlassF1Score(average="macro", **options),
                "kappa": MulticlassCohenKappa(**options),
            },
            prefix=f"{stage}/",
        )
        self.loss = MeanMetric(nan_strategy="disable")
        self.stage = stage

    def update(self, losses: Tensor, predicted: Tensor, labels: Tensor) -> None:
        """Adds images: their losses, float (N,), and predicted and true classes, int64 (N,)."""
        self.loss.update(losses)
        self.scores.update(predicted, labels)

    def compute(self) -> dict[str, Tensor]:
        """Name to float32 scalar, loss first; starts anew."""
        values = {f"{self.stage}/loss": self.loss.compute(), **self.scores.compute()}
        # A network that puts everything into the only class there is agrees by chance alone: kappa 0, not NaN.
        values[f"{self.stage}/kappa"] = torch.nan_to_num(values[f"{self.stage}/kappa"])
        self.loss.reset()
        self.scores.reset()
        return values

"""The names that options are made of. The module imports nothing heavy, so that options are checked at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

VERSION = "0.2.0"
SPLITS = ("train", "val", "test")
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Metric:
    """How torchmetrics computes a metric.

    Args:
        function: a name in ``torchmetrics.functional.classification``. A function "multiclass_..." serves any number of
            classes and is given ``num_classes``; a function "binary_..." serves two classes only.
        options: further arguments of the function.
        takes_scores: whether it takes the positive class's probabilities instead of the predicted classes.
        takes_confidence: whether it takes the probability of each predicted class, and whether that class is right.
        needs: the classes, of two, that have to be among the labels; where one is missing, the metric is NaN.
    """

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    takes_scores: bool = False
    takes_confidence: bool = False
    lower_is_better: bool = False
    needs: tuple[int, ...] = ()

    @property
    def binary(self) -> bool:
        """Whether the metric is defined for two classes only."""
        return self.function.startswith("binary_")


# One entry is all that a new metric needs: every file, table, interval and objective follows from here.
METRIC_TABLE = {
    "accuracy": Metric("multiclass_accuracy", {"average": "micro"}),
    "precision": Metric("multiclass_precision", {"average": "macro"}),
    "recall": Metric("multiclass_recall", {"average": "macro"}),
    "f1": Metric("multiclass_f1_score", {"average": "macro"}),
    "kappa": Metric("multiclass_cohen_kappa"),
    "auroc": Metric("binary_auroc", takes_scores=True, needs=(0, 1)),
    "average_precision": Metric("binary_average_precision", takes_scores=True, needs=(1,)),
    "sensitivity": Metric("binary_recall", needs=(1,)),
    "specificity": Metric("binary_specificity", needs=(0,)),
    "calibration_error": Metric(
        "binary_calibration_error", {"n_bins": CALIBRATION_BINS}, takes_confidence=True, lower_is_better=True
    ),
}
METRICS = ("loss", *(name for name, metric in METRIC_TABLE.items() if not metric.binary))
BINARY_METRICS = tuple(name for name, metric in METRIC_TABLE.items() if metric.binary)
# An evaluation computes these for more than two classes too. Training does not, because it keeps no probabilities.
MANY_CLASS_METRICS = ("auroc", "calibration_error", "top5_accuracy")
EVALUATION_METRICS = tuple(dict.fromkeys((*METRICS, *BINARY_METRICS, *MANY_CLASS_METRICS)))  # in the order of tables
TOP5_FROM = 20  # with fewer classes, the top-5 accuracy says little
COVERAGES = (80, 90, 95)  # an evaluation tells the accuracy of the most confident 80, 90 and 95% of the answers
LOWER_IS_BETTER = ("loss", *(name for name, metric in METRIC_TABLE.items() if metric.lower_is_better))
BINARY_OBJECTIVES = tuple(f"val/{name}" for name in BINARY_METRICS)
OBJECTIVES = (*(f"val/{name}" for name in METRICS), *BINARY_OBJECTIVES)


def better(objective: str) -> Literal["min", "max"]:
    """Whether a low or a high value of a metric with its split, such as "val/accuracy", is better."""
    return "min" if objective.rpartition("/")[2] in LOWER_IS_BETTER else "max"

"""The names of splits and metrics, and which metrics are better when lower; nothing heavy is imported."""

from typing import Literal

VERSION = "0.2.0"
SPLITS = ("train", "val", "test")
METRICS = ("loss", "accuracy", "precision", "recall", "f1", "kappa")
BINARY_METRICS = ("auroc", "average_precision", "sensitivity", "specificity", "calibration_error")
LOWER_IS_BETTER = ("loss", "calibration_error")
BINARY_OBJECTIVES = tuple(f"val/{name}" for name in BINARY_METRICS)
OBJECTIVES = (*(f"val/{name}" for name in METRICS), *BINARY_OBJECTIVES)


def better(objective: str) -> Literal["min", "max"]:
    """Whether a low or a high value of a metric is better.

    Args:
        objective: a metric with its split, such as "val/accuracy".

    Example:
        >>> better("val/loss")
        'min'
    """
    return "min" if objective.rpartition("/")[2] in LOWER_IS_BETTER else "max"

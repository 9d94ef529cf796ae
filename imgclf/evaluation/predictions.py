"""predictions.csv: the answer to every image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imgclf.core.text import printable
from imgclf.inference.predictor import Prediction
from imgclf.runs.run_dir import RunDir

PREDICTION_COLUMNS = ["file", "label", "label_name", "predicted", "class_name", "probability"]


def write_predictions(run_dir: RunDir, *answers: Any) -> Path:
    """Writes predictions.csv into a run folder, and returns its path; ``answers`` are those of ``prediction_table``."""
    return run_dir.write_csv("predictions.csv", *prediction_table(*answers))


def prediction_table(
    class_names: Sequence[str],
    files: Sequence[str],
    labels: Sequence[int | None],
    predictions: Sequence[Prediction],
    probabilities: Sequence[Sequence[float] | None],
    more: Mapping[str, Sequence[Any]] | None = None,
) -> tuple[list[str], list[list[Any]]]:
    """The columns ``PREDICTION_COLUMNS``, then p(NAME) for every class; and a row for each of N images.

    Args:
        class_names: in the order of the class indices.
        files: the path of each image, or its index in a split.
        labels: the true class of each image; None where it is unknown.
        predictions: the answer to each image; one without a class says why in its class_name.
        probabilities: those of all classes, for each image; None where there is no answer.
        more: columns that come last, with a value for each image.
    """
    rows = []
    for file, label, given, shares in zip(files, labels, predictions, probabilities, strict=True):
        name = None if label is None else class_names[label]
        probability = None if given.probability is None else f"{given.probability:.6f}"
        row = (printable(file), label, name, given.predicted, given.class_name, probability)
        rows.append([*row, *([None] * len(class_names) if shares is None else (f"{share:.6f}" for share in shares))])
    more = more or {}
    rows = [[*row, *(column[i] for column in more.values())] for i, row in enumerate(rows)]
    return [*PREDICTION_COLUMNS, *(f"p({name})" for name in class_names), *more], rows

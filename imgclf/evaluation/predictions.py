"""predictions.csv: the answer to every image."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

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
    probabilities: Iterable[Tensor | None],
    more: Mapping[str, Sequence[Any]] | None = None,
) -> tuple[list[str], Iterator[list[Any]]]:
    """The columns ``PREDICTION_COLUMNS``, then p(NAME) for every class; and the rows of N images, to be read once.

    Args:
        class_names: in the order of the class indices.
        files: the path of each image, or its index in a split.
        labels: the true class of each image; None where it is unknown.
        predictions: the answer to each image; one without a class says why in its class_name.
        probabilities: float (classes,) for each image, or float (N, classes); None where there is no answer.
        more: columns that come last, with a value for each image.
    """
    more = more or {}

    def rows() -> Iterator[list[Any]]:  # one at a time: there may be a thousand classes
        given = zip(files, labels, predictions, probabilities, strict=True)
        for i, (file, label, answer, shares) in enumerate(given):
            name = None if label is None else class_names[label]
            probability = None if answer.probability is None else f"{answer.probability:.6f}"
            row = (printable(file), label, name, answer.predicted, answer.class_name, probability)
            every = [None] * len(class_names) if shares is None else [f"{share:.6f}" for share in shares.tolist()]
            yield [*row, *every, *(column[i] for column in more.values())]

    return [*PREDICTION_COLUMNS, *(f"p({name})" for name in class_names), *more], rows()

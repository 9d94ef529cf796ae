"""The table of predictions that a run leaves behind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imgclf.inference.predictor import Prediction
from imgclf.runs.run_dir import RunDir

PREDICTION_COLUMNS = ["file", "label", "predicted", "class_name", "probability"]


def write_predictions(
    run_dir: RunDir, files: Sequence[str], labels: Sequence[int | None], predictions: Sequence[Prediction]
) -> Path:
    """Writes predictions.csv, a row for each image.

    Args:
        run_dir: where to.
        files: how each image is called.
        labels: the true class of each image. None leaves its cell empty.
        predictions: a photograph that shows no single digit has no predicted class, and its cells stay empty.
    """
    rows: list[dict[str, Any]] = [
        {
            "file": file,
            "label": label,
            "predicted": prediction.predicted,
            "class_name": prediction.class_name,
            "probability": None if prediction.probability is None else f"{prediction.probability:.6f}",
        }
        for file, label, prediction in zip(files, labels, predictions, strict=True)
    ]
    return run_dir.write_csv("predictions.csv", PREDICTION_COLUMNS, rows)

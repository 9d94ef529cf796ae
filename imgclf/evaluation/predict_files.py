"""Predicts image files, and compares the predictions with labels where those are known."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from rich import get_console
from rich.markup import escape
from rich.progress import track
from torch import Tensor

from imgclf.core.text import printable
from imgclf.evaluation.known_labels import known_labels
from imgclf.evaluation.predictions_csv import write_predictions
from imgclf.figures.classification import plot_confusion_matrix, plot_predictions
from imgclf.figures.style import encode_png, render
from imgclf.imaging.image_files import find_images
from imgclf.inference.predictor import ImagesAs, Prediction, Predictor
from imgclf.runs.run_dir import RunDir

SHOWN = 120  # images on the contact sheet
PRINTED = 20  # predictions in the terminal

log = logging.getLogger(__name__)


def predict_files(
    run_dir: RunDir, predictor: Predictor, pattern: str, images_as: ImagesAs = "auto"
) -> dict[str, float]:
    """Predicts images; writes predictions.csv, a contact sheet of what the network saw, and metrics.json.

    Where labels are known (``known_labels``), a confusion matrix joins them. A photograph that shows no single digit
    counts as wrong. A file that cannot be read is left out, and a warning names it.

    Args:
        run_dir: where to write.
        predictor: of any network.
        pattern: a file, a folder or a glob.
        images_as: as in ``Predictor.predict``.

    Returns:
        metrics.json: "images/count", and for labelled images "images/labelled" and "images/accuracy".

    Raises:
        FileNotFoundError: nothing matches the pattern.
        ValueError: none of the files is a readable image.
    """
    files, predictions, seen = _predict(predictor, pattern, images_as)
    labels, names = known_labels(files, predictor.class_names), [printable(file) for file in files]
    table = write_predictions(run_dir, names, labels, predictions)
    figures = {"predictions": plot_predictions(seen, labels, predictions, predictor.class_names)}
    metrics = {"images/count": float(len(files))}
    pairs = [(label, given.predicted) for label, given in zip(labels, predictions, strict=True) if label is not None]
    if pairs:
        accuracy = sum(label == predicted for label, predicted in pairs) / len(pairs)
        metrics |= {"images/labelled": float(len(pairs)), "images/accuracy": accuracy}
        counts = torch.zeros(len(predictor.class_names), len(predictor.class_names), dtype=torch.int64)
        for label, predicted in pairs:
            if predicted is not None:
                counts[label, predicted] += 1
        title = f"{len(pairs):,} labelled images, accuracy {accuracy:.4f}"
        figures["confusion_matrix"] = plot_confusion_matrix(counts, predictor.class_names, title)
    for name, figure in figures.items():
        run_dir.write(f"figures/{name}.png", encode_png(render(figure)))
    run_dir.write_json("metrics.json", metrics)
    _print(names, predictions, metrics, table)
    return metrics


def _predict(predictor: Predictor, pattern: str, images_as: ImagesAs) -> tuple[list[Path], list[Prediction], Tensor]:
    """The files that are readable images, the prediction of each, and the first images as the network saw them."""
    found = find_images(pattern)
    files, predictions, seen, errors = [], [], [], []
    for file in track(found, "predicting", console=get_console(), transient=True):
        try:
            image, faults = predictor.preprocess(file, images_as)
        except OSError as error:
            errors.append(error)
            continue
        files.append(file)
        predictions += predictor.predict_preprocessed(image, faults)
        if len(seen) < SHOWN:
            seen.append(image[0])
    for error in errors:
        log.warning("left out: %s", error)
    if not files:
        raise ValueError(f"images={pattern}: none of {len(found)} files is a readable image ({errors[0]})")
    return files, predictions, torch.stack(seen)


def _print(names: Sequence[str], predictions: Sequence[Prediction], metrics: dict[str, float], table: Path) -> None:
    lines = []
    for name, given in zip(names[:PRINTED], predictions, strict=False):
        percentage = "" if given.probability is None else f" ({100 * given.probability:.1f}%)"
        lines.append(f"{name}: {given.class_name}{percentage}")
    if "images/accuracy" in metrics:
        labelled, accuracy = metrics["images/labelled"], metrics["images/accuracy"]
        lines.append(f"accuracy on {labelled:.0f} labelled images: {accuracy:.4f}")
    lines.append(f"{len(predictions)} predictions are in {table}")
    for line in lines:
        get_console().print(escape(line), highlight=False, soft_wrap=True)

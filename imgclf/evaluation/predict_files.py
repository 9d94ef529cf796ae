"""Predicts image files, and compares the predictions with labels where those are known."""

import logging
from pathlib import Path

import torch
from rich import get_console
from rich.markup import escape
from rich.progress import track
from torch import Tensor

from imgclf.core.text import printable
from imgclf.evaluation.known_labels import known_labels
from imgclf.evaluation.predictions import write_predictions
from imgclf.evaluation.report import write_figures
from imgclf.figures.classification import plot_confusion_matrix, plot_predictions
from imgclf.imaging.image_files import find_images
from imgclf.inference.predictor import ImagesAs, Prediction, Predictor
from imgclf.runs.run_dir import RunDir

SHOWN = 120  # images on the contact sheet
PRINTED = 20  # predictions in the terminal

log = logging.getLogger(__name__)


def predict_files(
    run_dir: RunDir, predictor: Predictor, pattern: str, images_as: ImagesAs = "auto"
) -> dict[str, float]:
    """Predicts a file, a folder or a glob; writes predictions.csv, a contact sheet of inputs, and metrics.json.

    Where labels are known (``known_labels``), a confusion matrix joins them. A photograph that shows no single digit
    counts as wrong. A file that cannot be read is left out, and a warning names it.

    Returns:
        metrics.json: "images/count", and for labelled images "images/labelled" and "images/accuracy".

    Raises:
        FileNotFoundError: nothing matches the pattern.
        ValueError: none of the files is a readable image.
    """
    files, predictions, probabilities, seen = _predict(predictor, pattern, images_as)
    class_names = predictor.class_names
    labels, names = known_labels(files, class_names), [printable(file) for file in files]
    table = write_predictions(run_dir, class_names, names, labels, predictions, probabilities)
    figures = {"predictions": plot_predictions(seen, labels, predictions, class_names)}
    metrics = {"images/count": float(len(files))}
    lines = []
    for name, given in zip(names[:PRINTED], predictions, strict=False):
        percentage = "" if given.probability is None else f" ({given.probability:.1%})"
        lines.append(f"{name}: {given.class_name}{percentage}")
    pairs = [(label, given.predicted) for label, given in zip(labels, predictions, strict=True) if label is not None]
    if pairs:
        counts = torch.zeros(len(class_names), len(class_names), dtype=torch.int64)
        for label, predicted in pairs:
            if predicted is not None:
                counts[label, predicted] += 1
        accuracy = int(counts.trace()) / len(pairs)
        metrics |= {"images/labelled": float(len(pairs)), "images/accuracy": accuracy}
        title = f"{len(pairs):,} labelled images, accuracy {accuracy:.4f}"
        figures["confusion_matrix"] = plot_confusion_matrix(counts, class_names, title)
        lines.append(f"accuracy on {len(pairs)} labelled images: {accuracy:.4f}")
    write_figures(run_dir, figures)
    run_dir.write_json("metrics.json", metrics)
    for line in [*lines, f"{len(predictions)} predictions are in {table}"]:
        get_console().print(escape(line), highlight=False, soft_wrap=True)
    return metrics


def _predict(
    predictor: Predictor, pattern: str, images_as: ImagesAs
) -> tuple[list[Path], list[Prediction], list[list[float] | None], Tensor]:
    """The files that are readable images, the answer to each, and the first images as the network saw them."""
    found = find_images(pattern)
    files, predictions, probabilities, seen, errors = [], [], [], [], []
    for file in track(found, "predicting", console=get_console(), transient=True):
        try:
            image, faults = predictor.preprocess(file, images_as)
        except OSError as error:
            errors.append(error)
            continue
        files.append(file)
        shares = predictor.logits(image).softmax(1)
        if faults[0]:
            predictions.append(Prediction(None, faults[0], None))
        else:
            predictions += predictor.to_predictions(shares)
        probabilities.append(None if faults[0] else shares[0].tolist())
        if len(seen) < SHOWN:
            seen.append(image[0])
    for error in errors:
        log.warning("left out: %s", error)
    if not files:
        raise ValueError(f"images={pattern}: none of {len(found)} files is a readable image ({errors[0]})")
    return files, predictions, probabilities, torch.stack(seen)

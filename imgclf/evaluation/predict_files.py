"""Predicts image files, and compares the predictions with labels where those are known."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from rich import get_console
from rich.progress import track
from torch import Tensor

from imgclf.core.console import print_line
from imgclf.core.text import printable, some_names
from imgclf.core.validation import Probability, checked
from imgclf.evaluation.known_labels import known_labels
from imgclf.evaluation.predict_pages import predict_pages
from imgclf.evaluation.predictions import write_predictions
from imgclf.evaluation.report import write_figures
from imgclf.figures.classification import plot_confusion_matrix, plot_predictions
from imgclf.imaging.image_files import describe_unread, find_images
from imgclf.inference.predictor import ImagesAs, Prediction, Predictor
from imgclf.runs.run_dir import RunDir

SHOWN = 120  # images on the contact sheet
PRINTED = 20  # predictions in the terminal
BLOCK_SIZE = 256  # files that are decoded before the network sees them


class Answers(NamedTuple):
    """What there is to say of each file; one that has no answer has no probabilities."""

    predictions: list[Prediction]
    probabilities: list[Tensor | None]
    faults: dict[Path, str]  # of the files that cannot be read
    seen: dict[Path, Tensor]  # the first images as the network saw them


@checked
def predict_files(
    run_dir: RunDir,
    predictor: Predictor,
    images: str | Sequence[str],
    images_as: ImagesAs = "auto",
    unsure_below: Probability = 0.0,
    several: bool = False,
) -> dict[str, float]:
    """Predicts files, folders or globs; writes predictions.csv, a contact sheet of inputs, and metrics.json.

    Where labels are known (``known_labels``), a confusion matrix joins them. A photograph that shows no single digit,
    and an answer below ``unsure_below``, count as wrong. A file that cannot be read has a row that says why.
    With ``several``, each image is a page of digits (``predict_pages``).

    Returns:
        metrics.json: "images/count" and "images/unreadable", and for labelled images "images/labelled" and
        "images/accuracy".

    Raises:
        FileNotFoundError: nothing matches.
        ValueError: none of the files is a readable image.
    """
    if several:
        return predict_pages(run_dir, predictor, images, unsure_below)
    others: Counter[str] = Counter()
    files = find_images(images, others)
    progress = partial(track, description="predicting", console=get_console(), transient=True)
    answers = predict_each(predictor, files, images_as, unsure_below, progress)
    if len(answers.faults) == len(files):
        reason = next(iter(answers.faults.values()))
        raise ValueError(f"images={images}: none of {len(files)} files is a readable image ({reason})")
    class_names, predictions = predictor.class_names, answers.predictions
    labels, names = known_labels(files, class_names), [printable(file) for file in files]
    table = write_predictions(run_dir, class_names, names, labels, predictions, answers.probabilities)
    rows = [files.index(file) for file in answers.seen]
    inputs, shown = torch.stack([*answers.seen.values()]), [predictions[row] for row in rows]
    title = "What the network saw, and its answers"
    if len(files) > len(rows):
        title += f" ({len(rows)} of {len(files):,} images)"
    figures = {"predictions": plot_predictions(inputs, [labels[row] for row in rows], shown, class_names, title)}
    metrics = {"images/count": float(len(files)), "images/unreadable": float(len(answers.faults))}
    lines = []
    for name, given in zip(names[:PRINTED], predictions, strict=False):
        percentage = "" if given.probability is None else f" ({given.probability:.1%})"
        lines.append(f"{name}: {given.class_name}{percentage}")
    if len(files) > PRINTED:
        lines.append(f"... and {len(files) - PRINTED:,} more")
    known = [(label, given) for label, given in zip(labels, predictions, strict=True) if label is not None]
    if known:
        counts = torch.zeros(len(class_names), len(class_names), dtype=torch.int64)
        for label, given in known:
            if given.predicted is not None:
                counts[label, given.predicted] += 1
        accuracy = int(counts.trace()) / len(known)
        metrics |= {"images/labelled": float(len(known)), "images/accuracy": accuracy}
        title = f"{len(known):,} labelled images, accuracy {accuracy:.4f}"
        figures["confusion_matrix"] = plot_confusion_matrix(counts, class_names, title)
        lines.append(f"accuracy {accuracy:.4f}; images with a known label: {len(known):,}")
    if answers.faults:
        unread = some_names([f"{file} ({reason})" for file, reason in answers.faults.items()])
        lines.append(f"{len(answers.faults)} of {len(files)} files cannot be read: {unread}")
    if others:
        lines.append(describe_unread(others))
    write_figures(run_dir, figures)
    run_dir.write_json("metrics.json", metrics)
    for line in [*lines, f"{len(predictions)} predictions are in {table}"]:
        print_line(line)
    return metrics


def predict_each(
    predictor: Predictor,
    files: Sequence[Path],
    images_as: ImagesAs = "auto",
    unsure_below: float = 0.0,
    progress: Callable[[range], Iterable[int]] = iter,
) -> Answers:
    """Predicts image files: threads decode them, and the network sees them a block at a time.

    ``progress`` may show how far the blocks are that it passes on.
    """

    def read(file: Path) -> tuple[Tensor, list[str | None]] | OSError:
        try:
            return predictor.preprocess(file, images_as)
        except OSError as error:
            return error

    answers = Answers([], [], {}, {})
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in progress(range(0, len(files), BLOCK_SIZE)):
            block = files[start : start + BLOCK_SIZE]
            read_images = list(pool.map(read, block))
            inputs = [image[0] for image in read_images if not isinstance(image, OSError)]
            logits = predictor.logits(torch.cat(inputs)) if inputs else torch.empty(0, len(predictor.class_names))
            of_readable = iter(logits.softmax(1))
            for file, image in zip(block, read_images, strict=True):
                if isinstance(image, OSError):
                    answers.faults[file] = str(image).removeprefix(f"{printable(file)}: ")
                    answers.predictions.append(Prediction(None, answers.faults[file], None))
                    answers.probabilities.append(None)
                    continue
                probabilities, (fault,) = next(of_readable), image[1]
                if len(answers.seen) < SHOWN:
                    answers.seen[file] = image[0][0]
                answers.probabilities.append(None if fault else probabilities)
                if fault:
                    answers.predictions.append(Prediction(None, fault, None))
                else:
                    answers.predictions.extend(predictor.to_predictions(probabilities[None], unsure_below))
    return answers

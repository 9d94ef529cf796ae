"""Predicts every digit of photographed pages."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgclf.core.console import print_line
from imgclf.core.text import printable, some_names
from imgclf.evaluation.predictions import write_predictions
from imgclf.evaluation.report import write_figures
from imgclf.figures.classification import plot_page
from imgclf.imaging.handwriting import NO_INK
from imgclf.imaging.image_files import find_images, open_image
from imgclf.imaging.pages import PAGE_SIZE, find_digits
from imgclf.inference.predictor import Prediction, Predictor
from imgclf.runs.run_dir import RunDir

SHOWN_PAGES = 20  # drawn with boxes
BOX_COLUMNS = ["left", "top", "right", "bottom"]


def predict_pages(
    run_dir: RunDir, predictor: Predictor, images: str | Sequence[str], unsure_below: float = 0.0
) -> dict[str, float]:
    """Predicts the digits of pages; writes predictions.csv, a row a digit with its box, and pictures with the boxes.

    A page without ink, or that cannot be read, has one row that says so. Boxes are in the upright page's pixels.

    Returns:
        metrics.json: "images/count", "images/unreadable" and "images/digits".

    Raises:
        FileNotFoundError: nothing matches.
        ValueError: the network does not read handwriting, or none of the files is a readable image.
    """
    if not predictor.reads_handwriting:
        raise ValueError("several=true: is for networks of handwritten digits or letters; leave it out for this one")
    files, rows, figures, faults = find_images(images), [], {}, []
    for file in files:
        try:
            page = open_image(file, 2**20).convert("RGB")  # at its full size, for the boxes
        except OSError as error:
            reason = str(error).removeprefix(f"{printable(file)}: ")
            faults.append(f"{printable(file)} ({reason})")
            rows.append((file, Prediction(None, reason, None), None, None))
            continue
        answers = _predict_page(predictor, page, unsure_below)
        if not answers:
            rows.append((file, Prediction(None, NO_INK, None), None, None))
        rows += [(file, *answer) for answer in answers]
        text = "".join(given.class_name if given.predicted is not None else "?" for given, _, _ in answers)
        print_line(f"{printable(file)}: {text or NO_INK}")
        if len(figures) < SHOWN_PAGES:
            boxes, names = [box for *_, box in answers], [given.class_name for given, *_ in answers]
            figures[f"page_{len(figures) + 1}"] = plot_page(np.asarray(page), boxes, names, file.name)
    if len(faults) == len(files):
        raise ValueError(f"images={images}: none of {len(files)} files is a readable image ({faults[0]})")
    names, predictions = [printable(file) for file, *_ in rows], [given for _, given, *_ in rows]
    probabilities, boxes = [shares for *_, shares, _ in rows], [box or [None] * 4 for *_, box in rows]
    more = dict(zip(BOX_COLUMNS, map(list, zip(*boxes, strict=True)), strict=True))
    table = write_predictions(
        run_dir, predictor.class_names, names, [None] * len(rows), predictions, probabilities, more
    )
    write_figures(run_dir, figures)
    digits = sum(box[0] is not None for box in boxes)
    metrics = {
        "images/count": float(len(files)),
        "images/unreadable": float(len(faults)),
        "images/digits": float(digits),
    }
    run_dir.write_json("metrics.json", metrics)
    if faults:
        print_line(f"{len(faults)} of {len(files)} files cannot be read: {some_names(faults)}")
    print_line(f"{digits} digits with their boxes are in {table}")
    return metrics


def _predict_page(
    predictor: Predictor, page: Image.Image, unsure_below: float
) -> list[tuple[Prediction, Tensor, tuple[int, ...]]]:
    """The answer to each digit, its probabilities and its box."""
    factor = max(1, max(page.size) // (3 * PAGE_SIZE))
    digits = find_digits(np.asarray(page.reduce(factor) if factor > 1 else page))
    if not digits:
        return []
    inputs = torch.from_numpy(np.stack([digit.image for digit in digits]))[:, None]
    inputs = 255 - inputs if predictor.polarity == "dark_on_light" else inputs
    probabilities = predictor.logits(inputs).softmax(1)
    boxes = [tuple(side * factor for side in digit.box) for digit in digits]
    return list(zip(predictor.to_predictions(probabilities, unsure_below), probabilities, boxes, strict=True))

"""The explanation of one answer, as the page of imgclf.demo shows it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgclf.core.text import printable
from imgclf.evaluation.grad_cam import grad_cam
from imgclf.evaluation.predict_files import predict_each
from imgclf.evaluation.predictions import prediction_table
from imgclf.figures.classification import overlay_heat_map
from imgclf.imaging.image_files import open_image
from imgclf.inference.predictor import Predictor

SHOWN_SIDE = 400  # pixels of an original's longer side
SIDE = 280  # pixels; small images are enlarged to it


class Explanation(NamedTuple):
    """What the page shows of an image; all but the answer and the original are None if there is no answer."""

    answer: str  # the class and its probability, or why there is none
    probabilities: dict[str, float] | None = None  # by class name
    input: np.ndarray | None = None  # the network's input, uint8 (H, W, 3); the pixels of a small image are enlarged
    evidence: np.ndarray | None = None  # Grad-CAM over the input, if the network has a layer with a height and a width
    original: Image.Image | None = None  # the image, if it came as a file, at most SHOWN_SIDE pixels a side


def explain_image(predictor: Predictor, source: str | Image.Image | None, unsure_below: float = 0.0) -> Explanation:
    """Predicts an image file or PIL image, read as ``predict`` reads it, and explains the answer.

    The evidence is for the second of two classes, else for the answer. Without an image (None) the answer is empty. An
    image that cannot be read gets its error as the answer. An answer below ``unsure_below`` is "unsure".
    """
    if source is None:
        return Explanation("")
    original = None
    try:
        inputs, (fault,) = predictor.preprocess(source)
        if not isinstance(source, Image.Image):
            original = open_image(source, SHOWN_SIDE, bits=predictor.bits).convert("RGB")
            original.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    except (OSError, ValueError) as error:
        return Explanation(_without_folder(error, source) if isinstance(source, str) else str(error))
    if fault:
        return Explanation(fault, original=original)
    probabilities, names = predictor.logits(inputs).softmax(1), predictor.class_names
    (prediction,) = predictor.to_predictions(probabilities)
    (told,) = predictor.to_predictions(probabilities, unsure_below)
    answer, explained = f"{told.class_name}, {prediction.probability:.0%}", prediction.predicted
    if len(names) == 2:
        answer, explained = f"{answer} (the threshold of {names[1]} is {predictor.threshold:.1%})", 1
    heat = grad_cam(predictor, inputs, torch.tensor([explained]))
    plain = overlay_heat_map(inputs, torch.zeros(1, *inputs.shape[2:]))[0]
    return Explanation(
        answer,
        probabilities=dict(zip(names, probabilities[0].tolist(), strict=True)),
        input=_enlarge(plain),
        evidence=None if heat is None else _enlarge(overlay_heat_map(inputs, heat)[0]),
        original=original,
    )


def predict_uploads(
    predictor: Predictor, files: Sequence[str], unsure_below: float = 0.0
) -> tuple[list[str], list[list[Any]]]:
    """Predicts image files; returns the columns and the rows of their predictions.csv.

    A file that cannot be read, or that shows no digit, has no class, and its fault in place of the class name.
    """
    paths = [Path(file) for file in files]
    answers, names = predict_each(predictor, paths, unsure_below=unsure_below), [path.name for path in paths]
    faults = {path: f"{printable(path.name)}: {fault}" for path, fault in answers.faults.items()}
    told = [
        given._replace(class_name=faults.get(path, given.class_name))
        for path, given in zip(paths, answers.predictions, strict=True)
    ]
    columns, rows = prediction_table(predictor.class_names, names, [None] * len(names), told, answers.probabilities)
    return columns, list(rows)


def _without_folder(error: Exception, file: str) -> str:
    """An error's message; the user knows the file's name, not the temporary folder that it was put into."""
    return str(error).replace(printable(file), printable(Path(file).name))


def _enlarge(picture: Tensor) -> np.ndarray:
    """Float (3, H, W) in [0, 1] as uint8 (H, W, 3), its pixels repeated as long as that stays within ``SIDE``."""
    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    factor = max(1, SIDE // max(pixels.shape))
    return pixels.repeat(factor, 0).repeat(factor, 1)

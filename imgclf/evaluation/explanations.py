"""A figure that shows, for some images of a split, where the network found its evidence."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.grad_cam import grad_cam
from imgclf.figures.classification import plot_heat_maps
from imgclf.inference.predictor import Predictor

PER_OUTCOME = 6  # images


def plot_explanations(evaluation: Evaluation, predictor: Predictor) -> Figure | None:
    """Some images of each outcome under their ``grad_cam``; None if the network has no layer for it.

    The evidence is that for the predicted class. For two classes it is always that for the positive class.
    """
    names, binary = predictor.class_names, evaluation.num_classes == 2
    chosen = {title: _spread(mask.nonzero().flatten()) for title, mask in _outcomes(evaluation, names).items()}
    chosen = {title: rows for title, rows in chosen.items() if len(rows)}
    rows = torch.cat(list(chosen.values()))
    classes = torch.ones_like(rows) if binary else evaluation.predicted[rows]
    images, _ = evaluation.images[rows]
    heat = grad_cam(predictor, images, classes)
    if heat is None:
        return None
    shares = evaluation.probabilities[rows, classes].tolist()
    captions = [f"{names[label]} {100 * share:.0f}%" for label, share in zip(classes.tolist(), shares, strict=True)]
    lengths = {title: len(rows) for title, rows in chosen.items()}
    return plot_heat_maps(images, heat, captions, lengths, "Grad-CAM: where the evidence is")


def _outcomes(evaluation: Evaluation, names: list[str]) -> dict[str, Tensor]:
    """The title of each outcome to a mask of its images, bool (N,)."""
    right = evaluation.predicted == evaluation.labels
    if evaluation.num_classes != 2:
        return {"right": right, "wrong": ~right}
    negative_name, positive_name = names
    positive = evaluation.labels == 1
    return {
        f"{positive_name} found": positive & right,
        f"{positive_name} missed": positive & ~right,
        f"{negative_name} taken for {positive_name}": ~positive & ~right,
        f"{negative_name} recognised": ~positive & right,
    }


def _spread(rows: Tensor) -> Tensor:
    """At most ``PER_OUTCOME`` of the rows, from all over the split, because neighbours in it may be one patient's."""
    return rows[:: max(1, len(rows) // PER_OUTCOME)][:PER_OUTCOME]

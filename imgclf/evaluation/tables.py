"""The tables of an evaluation: the confusion matrix, and the figures of every class with their intervals."""

import numpy as np
import torch

from imgclf.core import rng
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.resampling import unit_of_image

RESAMPLES = 1000
PER_CLASS = ("precision", "recall", "f1")
BOUNDED = [f"{name}{end}" for name in PER_CLASS for end in ("", "_low", "_high")]
PER_CLASS_COLUMNS = ["split", "class", "images", *BOUNDED]


def confusion_rows(evaluation: Evaluation, class_names: list[str]) -> list[list[str | int]]:
    """The rows of confusion_matrix.csv: a true class, and how many of its images were predicted as each class."""
    counts = evaluation.confusion_matrix().tolist()
    return [[name, *row] for name, row in zip(class_names, counts, strict=True)]


def per_class_rows(evaluation: Evaluation, class_names: list[str]) -> list[list[str | int | float]]:
    """The rows of per_class.csv, one for each class, with ``PER_CLASS_COLUMNS``.

    The bounds are those of the percentile bootstrap (Efron 1979), over groups where they are known, else over images.
    A figure without images that it is a share of, and a bound that no resample defines, are NaN.
    """
    counts = evaluation.confusion_matrix()
    truth, answer = counts.nonzero().T.numpy()
    cells = counts[truth, answer].numpy().astype(float)
    random = np.random.default_rng(rng.derive_seed("per_class"))
    members = unit_of_image(len(evaluation.labels), evaluation.groups)
    if (size := int(members.max()) + 1) < len(members):  # resample groups: how many images of each are in each cell?
        cell_of = np.zeros(counts.shape, int)
        cell_of[truth, answer] = np.arange(len(cells))
        contents = np.zeros((size, len(cells)))
        np.add.at(contents, (members.numpy(), cell_of[evaluation.labels, evaluation.predicted]), 1)
        resamples = random.multinomial(size, np.full(size, 1 / size), RESAMPLES) @ contents
    else:  # images drawn with replacement fall into the cells of the confusion matrix by a multinomial distribution
        resamples = random.multinomial(len(members), cells / cells.sum(), RESAMPLES)
    draws = np.stack([cells, *resamples])
    right, true, predicted = (np.zeros((len(draws), len(counts))) for _ in range(3))
    for cell, (row, column) in enumerate(zip(truth, answer, strict=True)):
        true[:, row] += draws[:, cell]
        predicted[:, column] += draws[:, cell]
        right[:, row] += draws[:, cell] * (row == column)
    with np.errstate(invalid="ignore"):  # 0/0
        values = {"precision": right / predicted, "recall": right / true, "f1": 2 * right / (predicted + true)}
    figures, tails = [], torch.tensor([0.025, 0.975], dtype=torch.float64)
    for name in PER_CLASS:
        bounds = torch.from_numpy(values[name][1:]).nanquantile(tails, dim=0)
        figures += [values[name][0], *bounds.numpy()]
    return [
        [evaluation.split, name, int(images), *(float(value) for value in row)]
        for name, images, row in zip(class_names, true[0], np.transpose(figures), strict=True)
    ]

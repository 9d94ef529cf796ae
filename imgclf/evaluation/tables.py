"""The tables of an evaluation: the confusion matrix, and the figures of every class with their intervals."""

import numpy as np
import torch

from imgclf.core import rng
from imgclf.evaluation.evaluate import Evaluation

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

    The bounds are those of the percentile bootstrap over images (Efron 1979). A figure without images that it is a
    share of, and a bound that no resample defines, are NaN.
    """
    counts = evaluation.confusion_matrix()
    truth, answer = counts.nonzero().T.numpy()
    cells = counts[truth, answer].numpy().astype(float)
    # Images drawn with replacement fall into the cells of the confusion matrix by a multinomial distribution.
    random = np.random.default_rng(rng.derive_seed("per_class"))
    draws = np.stack([cells, *random.multinomial(len(evaluation.labels), cells / cells.sum(), RESAMPLES)])
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

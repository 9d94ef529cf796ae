"""Labels that are probably wrong, found by confident learning (Northcutt et al. 2021)."""

from typing import NamedTuple

import torch
from torch import Tensor


class LabelIssues(NamedTuple):
    """M images whose labels are probably wrong, the most suspicious first."""

    rows: Tensor  # which of the N images they are, int64 (M,)
    suggested: Tensor  # the class that each probably has, int64 (M,)
    margins: Tensor  # by how much it is more probable than the label's class, float (M,) in (0, 1]


def find_label_issues(labels: Tensor, probabilities: Tensor) -> LabelIssues:
    """Finds images that are confidently predicted as another class than that of their label.

    A prediction of a class is confident if its probability reaches the mean that the class's own images have. An image
    off the diagonal of the counts of labels and confident predictions is an issue, unless its label is more probable
    still. The probabilities have to come from networks that were not trained on the images, as in cross-validation.

    Args:
        labels: the given classes, int64 (N,).
        probabilities: float (N, classes).

    Example:
        >>> find_label_issues(torch.tensor([0, 0, 1]), torch.tensor([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8]])).rows
        tensor([1])
    """
    of_label = probabilities.gather(1, labels[:, None])[:, 0]
    classes = probabilities.shape[1]
    thresholds = labels.bincount(of_label.double(), minlength=classes) / labels.bincount(minlength=classes)
    # Nothing reaches the threshold of a class without images, NaN.
    confident = torch.where(probabilities >= thresholds.float(), probabilities, -1)
    probability, suggested = confident.max(1)
    margins = probability - of_label
    rows = ((suggested != labels) & (margins > 0)).nonzero().flatten()
    rows = rows[margins[rows].argsort(descending=True, stable=True)]
    return LabelIssues(rows, suggested[rows], margins[rows])

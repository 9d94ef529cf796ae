"""Divides labelled images into two sides, balanced by class."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

MAX_FOLDS = 20  # groups are divided into at most as many folds


def split_holdout(
    labels: Tensor, fraction: float, seed: int, groups: Sequence[str] | None = None, *, name: str = "val_fraction"
) -> tuple[Tensor, Tensor]:
    """Draws the rows that stay and the rows that are held out, int64, both in random order.

    Without groups the share is exact, and the split is stratified where each class has enough images. With groups the
    share is approximate, and the classes are balanced as far as the groups allow.

    Args:
        labels: int64 (N,), class indices from 0.
        fraction: the share to hold out, in (0, 1).
        groups: a name for each row; rows of the same name stay on the same side.
        name: the caller's argument that holds the fraction, for error messages.

    Raises:
        ValueError: one side would be empty or, with groups, would lack a class.
    """
    # lazy: scikit-learn takes a second to import
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split

    num_held_out = math.ceil(fraction * len(labels))
    if not 0 < num_held_out < len(labels):
        raise ValueError(f"{name}={fraction}: it leaves one of the splits of {len(labels)} images empty")
    _, counts = labels.unique(return_counts=True)
    if groups is None:
        # A stratified split needs an image of every class on both sides; a smaller set is split at random instead.
        stratified = counts.min() > 1 and len(counts) <= min(num_held_out, len(labels) - num_held_out)
        classes = labels.numpy() if stratified else None
        rows = np.arange(len(labels))
        kept, held_out = train_test_split(rows, test_size=num_held_out, stratify=classes, random_state=seed)
        return torch.from_numpy(kept), torch.from_numpy(held_out)
    group_names, group_indices = np.unique(groups, return_inverse=True)
    max_folds = min(MAX_FOLDS, len(group_names), int(counts.min()))
    if max_folds < 2:
        raise ValueError(f"{name}={fraction}: there are too few groups ({len(group_names)}) or images of a class")
    # The held-out side takes some of the folds: as many of as many as come closest to the fraction.
    share = Fraction(fraction).limit_denominator(max_folds)
    share = min(max(share, Fraction(1, max_folds)), Fraction(max_folds - 1, max_folds))
    splitter = StratifiedGroupKFold(share.denominator, shuffle=True, random_state=seed)
    folds = [fold for _, fold in splitter.split(group_indices, labels.numpy(), group_indices)]
    is_held_out = torch.zeros(len(labels), dtype=torch.bool)
    is_held_out[np.concatenate(folds[: share.numerator])] = True
    if set(labels[is_held_out].tolist()) != set(labels[~is_held_out].tolist()):
        raise ValueError(f"{name}={fraction}: a class has too few groups to be on both sides")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return order[~is_held_out[order]], order[is_held_out[order]]

"""How images are divided into two splits."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor


def hold_out(
    labels: Tensor, fraction: float, seed: int, option: str, groups: Sequence[str] | None = None
) -> tuple[Tensor, Tensor]:
    """Rows that stay and rows that are held out, both in random order, by scikit-learn's splitters.

    Args:
        labels: int64 (N,).
        fraction: the share to hold out, in (0, 1).
        seed: chooses which.
        option: what the fraction is called in errors.
        groups: a name for each row; rows of the same name stay together. The share is then approximate, the classes
            are balanced as far as groups allow (``StratifiedGroupKFold``, some of up to 20 folds). Without groups
            the share is exact and the split stratified where each class has enough images.

    Raises:
        ValueError: a side would be empty, or, with groups, without a class.
    """
    from sklearn.model_selection import StratifiedGroupKFold, train_test_split

    counts = torch.bincount(labels)
    counts = counts[counts > 0]
    held = math.ceil(fraction * len(labels))
    if not 0 < held < len(labels):
        raise ValueError(f"{option}={fraction} of {len(labels)} images leaves a split empty")
    if groups is None:
        # A split must hold one image of every class for that; tiny sets are split at random instead.
        stratify = counts.min() > 1 and len(counts) <= min(held, len(labels) - held)
        stay, out = train_test_split(
            np.arange(len(labels)), test_size=held, stratify=labels.numpy() if stratify else None, random_state=seed
        )
        return torch.from_numpy(stay), torch.from_numpy(out)
    _, group = np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)
    limit = min(20, int(group.max()) + 1, int(counts.min()))
    if limit < 2:
        raise ValueError(f"{option}={fraction}: too few groups ({group.max() + 1}) or images of a class to divide")
    share = Fraction(fraction).limit_denominator(limit)
    share = min(max(share, Fraction(1, limit)), Fraction(limit - 1, limit))
    splitter = StratifiedGroupKFold(share.denominator, shuffle=True, random_state=seed)
    folds = [fold for _, fold in splitter.split(group, labels.numpy(), group)]
    chosen = np.zeros(len(labels), bool)
    chosen[np.concatenate(folds[: share.numerator])] = True
    if set(labels[chosen].tolist()) != set(labels[~chosen].tolist()):
        raise ValueError(f"{option}={fraction}: too few groups of a class to have some on either side")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    mask = torch.from_numpy(chosen)[order]
    return order[~mask], order[mask]

"""Divides labelled images into two sides, or into the folds of cross-validation, balanced by class."""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

Split = Callable[..., tuple[Tensor, Tensor]]  # takes labels, groups and digests; returns rows kept and rows held out
MAX_FOLDS = 20  # groups are divided into at most this many folds


def split_holdout(
    labels: Tensor,
    fraction: float,
    seed: int,
    groups: Sequence[str] | None = None,
    digests: Sequence[bytes] | None = None,
    *,
    name: str = "val_fraction",
) -> tuple[Tensor, Tensor]:
    """Draws the rows that stay and the rows that are held out, int64, both in random order.

    Without groups the share is exact but for copies, and the split is stratified where the classes have enough images.
    With groups the share is approximate, and the classes are balanced as far as the groups allow.

    Args:
        labels: int64 (N,), class indices from 0.
        fraction: the share to hold out, in (0, 1).
        groups: a name for each row; rows of the same name stay on the same side.
        digests: a hash of each row's pixels; copies of an image stay on the same side.
        name: the caller's argument that holds the fraction, for error messages.

    Raises:
        ValueError: one side would be empty or, with groups, would lack a class.
    """
    originals = _originals(digests) if digests else torch.arange(len(labels))
    unique = originals.unique()
    has_copies = len(unique) < len(originals)
    if groups is None and has_copies:
        kept, held_out = (unique[rows] for rows in _split_images(labels[unique], fraction, seed, name))
        copies = (originals != torch.arange(len(labels))).nonzero().flatten()
        is_held_out = torch.isin(originals[copies], held_out)
        return torch.cat([kept, copies[~is_held_out]]), torch.cat([held_out, copies[is_held_out]])
    if groups is None:
        return _split_images(labels, fraction, seed, name)
    if has_copies:
        groups = _joined(groups, originals)
    return _split_groups(labels, fraction, seed, groups, name)


def split_fold(
    labels: Tensor,
    folds: int,
    fold: int,
    seed: int,
    groups: Sequence[str] | None = None,
    digests: Sequence[bytes] | None = None,
) -> tuple[Tensor, Tensor]:
    """Divides the rows into folds, stratified by class; returns the rows of the other folds, and those of one fold.

    Both are int64 and in random order. Every row is in exactly one fold. With groups, the classes are balanced as far
    as the groups allow.

    Args:
        labels: int64 (N,), class indices from 0.
        folds: how many there are, from 2 up.
        fold: the one that is held out, from 0.
        groups, digests: as in ``split_holdout``; rows of a group, and copies of an image, are in one fold.

    Raises:
        ValueError: a class has too few images or groups for so many folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # lazy: as above

    originals = _originals(digests) if digests else torch.arange(len(labels))
    if groups is None:
        members, unit = originals, "image"
    else:
        members = torch.from_numpy(np.unique(_joined(groups, originals), return_inverse=True)[1])
        unit = "group"
    counts = torch.stack([labels, members]).unique(dim=1)[0].bincount()
    if (least := int(counts[counts > 0].min())) < folds:
        few, advice = (f"{least} {unit}s", f"give at most {least}") if least > 1 else (f"1 {unit}", "leave folds out")
        raise ValueError(f"folds={folds}: a class has only {few}; {advice}")
    fold_of = torch.empty(len(labels), dtype=torch.int64)
    if groups is None:
        unique = originals.unique()
        splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(unique, labels[unique])
        for number, (_, rows) in enumerate(splits):
            fold_of[unique[rows]] = number
        fold_of = fold_of[originals]
    else:
        splits = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(labels, labels, members)
        for number, (_, rows) in enumerate(splits):
            fold_of[rows] = number
    if len(torch.stack([labels, fold_of]).unique(dim=1)[0]) < folds * int((counts > 0).sum()):
        raise ValueError(f"folds={folds}: not every fold gets images of every class; give fewer")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return order[fold_of[order] != fold], order[fold_of[order] == fold]


def choose_split(fraction: float, folds: int | None, fold: int | None, seed: int) -> Split:
    """``split_fold`` where there are folds, else ``split_holdout``: a function of labels, groups and digests.

    Raises ValueError unless ``fold`` is one of ``folds``, or there is neither.
    """
    if folds is None and fold is not None:
        raise ValueError(f"fold={fold}: say of how many, as in folds=5")
    if folds is not None and fold is None:
        raise ValueError(f"folds={folds}: say which one is for validation, from fold=0 to fold={folds - 1}")
    if folds is not None and fold is not None and fold >= folds:
        raise ValueError(f"fold={fold}: give a whole number from 0 to {folds - 1}, since folds={folds}")
    if folds is not None and fold is not None:
        return functools.partial(split_fold, folds=folds, fold=fold, seed=seed)
    return functools.partial(split_holdout, fraction=fraction, seed=seed)


def _originals(digests: Sequence[bytes]) -> Tensor:
    """For each row, the first row with the same digest, int64."""
    firsts: dict[bytes, int] = {}
    return torch.tensor([firsts.setdefault(digest, row) for row, digest in enumerate(digests)])


def _split_images(labels: Tensor, fraction: float, seed: int, name: str) -> tuple[Tensor, Tensor]:
    """A class of one image stays; of every other class each side gets an image, where the sides have room for it."""
    from sklearn.model_selection import train_test_split  # lazy: scikit-learn takes a second to import

    classes, counts = labels.unique(return_counts=True)
    is_single = torch.isin(labels, classes[counts == 1])
    rows = (~is_single).nonzero().flatten()
    num_held_out = math.ceil(fraction * len(labels))
    if not 0 < num_held_out < len(rows):
        raise ValueError(f"{name}={fraction}: it leaves one of the splits of {len(labels)} images empty")
    stratified = int((counts > 1).sum()) <= min(num_held_out, len(rows) - num_held_out)
    strata = labels[rows].numpy() if stratified else None
    kept, held_out = train_test_split(rows.numpy(), test_size=num_held_out, stratify=strata, random_state=seed)
    for lacking, other in ((held_out, kept), (kept, held_out)):
        for label in sorted(set(labels[other].tolist()) - set(labels[lacking].tolist())):
            of_lacking = labels[lacking]
            several = (torch.bincount(of_lacking)[of_lacking] > 1).nonzero().flatten()
            if (labels[other] == label).sum() > 1 and len(several):
                place = int((labels[other] == label).nonzero()[0])
                lacking[several[0]], other[place] = other[place], lacking[several[0]]
    kept = torch.from_numpy(kept)
    if is_single.any():
        kept = torch.cat([kept, is_single.nonzero().flatten()])
        kept = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))]
    return kept, torch.from_numpy(held_out)


def _joined(groups: Sequence[str], originals: Tensor) -> list[str]:
    """Groups that share an image become one."""
    from scipy.sparse import coo_array  # lazy, as scikit-learn
    from scipy.sparse.csgraph import connected_components

    _, numbers = np.unique(groups, return_inverse=True)
    links = coo_array((np.ones(len(groups)), (numbers, numbers[originals.numpy()])), shape=(len(groups),) * 2)
    _, joined = connected_components(links, directed=False)
    names: dict[int, str] = {}
    return [names.setdefault(int(joined[number]), group) for number, group in zip(numbers, groups, strict=True)]


def _split_groups(
    labels: Tensor, fraction: float, seed: int, groups: Sequence[str], name: str
) -> tuple[Tensor, Tensor]:
    from sklearn.model_selection import StratifiedGroupKFold  # lazy, as above

    if not 0 < math.ceil(fraction * len(labels)) < len(labels):
        raise ValueError(f"{name}={fraction}: it leaves one of the splits of {len(labels)} images empty")
    _, counts = labels.unique(return_counts=True)
    group_names, group_indices = np.unique(groups, return_inverse=True)
    max_folds = min(MAX_FOLDS, len(group_names), int(counts.min()))
    if max_folds < 2:
        raise ValueError(f"{name}={fraction}: there are too few groups ({len(group_names)}) or images of a class")
    # The held-out side takes k of n folds, where k / n is as close to the fraction as max_folds allows.
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

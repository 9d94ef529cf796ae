"""What a user should know about a data set before training on it, a line each."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from imgclf.core.text import printable, some_names
from imgclf.data.datasets import ImageDataset
from imgclf.data.memmap_cache import MemmapImageDataset

if TYPE_CHECKING:
    from imgclf.data.datamodule import ImageDataModule

FEW_IMAGES, SMALL_SHARE = 50, 0.01  # a validation part with fewer images, or a smaller share of all, tells little
LARGE_SHARE = 0.8  # if a class has a larger share of the images, a network that always answers it looks good
LIKE_PATIENTS = re.compile(r"(?:person|patient|subject|case|pat|sub|pid|im)[-_ ]?\d+", re.IGNORECASE)
LOOKED_AT = 200  # images or names


def remarks(data: "ImageDataModule") -> Iterator[str]:
    """Small or incomplete parts, unequal classes, and for image files grey colours and patients."""
    names, counts = data.class_names, {}
    for split in ("train", "val"):
        counts[split] = Counter(data.dataset(split).targets.tolist())
    total, held_out = counts["train"].total(), counts["val"].total()
    of_files = isinstance(data.dataset("train"), MemmapImageDataset)  # whose test labels need no decoding
    for split in data.splits[1:] if of_files else ("val",):
        present = set(_unread(data, split).targets.tolist())
        if lacking := sorted(names[label] for label in counts["train"] if label not in present):
            yield f"{split} has no images of {some_names(lacking)}: its metrics leave these classes out"
    if held_out < FEW_IMAGES or held_out < SMALL_SHARE * total:
        share = 1 / max(1, held_out)
        yield (
            f"only {held_out} images are for validation: one image changes the accuracy by {share:.1%}, so that chance "
            "chooses the best epoch (a larger val_fraction, or cross-validation, tells more)"
        )
    label, most = counts["train"].most_common(1)[0]
    if most > LARGE_SHARE * total and data.balance == "none":
        yield (
            f"{most / total:.0%} of the training images are {printable(names[label])}: a network that always answers "
            "this has the same accuracy; balance=sampler or weighted_loss helps the other classes, and kappa or recall "
            "shows how they do"
        )
    by_lower_case = defaultdict(list)
    for name in names:
        by_lower_case[name.lower()].append(printable(name))
    for same in by_lower_case.values():
        if len(same) > 1:
            yield f"the classes {' and '.join(same)} differ in case only: are they one?"
    if of_files:
        yield from _of_files(data)


def _of_files(data: "ImageDataModule") -> Iterator[str]:
    images, _ = data.dataset("train")[:LOOKED_AT]
    if images.shape[1] == 3 and bool((images[:, :1] == images).all()):
        yield "the images are grey: channels=1 is faster and needs fewer weights"
    if not any(data.groups("train")):
        found = [LIKE_PATIENTS.search(name.rpartition("/")[2]) for name in data.image_names("train")]
        people = Counter(match[0] for match in found if match)
        if people.total() > len(found) / 2 and 1 < len(people) < people.total():
            yield (
                f"file names look like patients ({people.most_common(1)[0][0]}, ...): images of one patient may be in "
                "two splits; group_pattern keeps them together"
            )


def labels_before_training(data: "ImageDataModule", split: str) -> Tensor | None:
    """The labels of a split, int64 (N,); None for test images that would have to be read for them."""
    of_files = isinstance(data.dataset("train"), MemmapImageDataset)
    return _unread(data, split).targets if of_files or split != "test" else None


def copies(data: "ImageDataModule") -> Iterator[str]:
    """Image files with equal pixels in two splits or under two labels; their hashes come from the cache."""
    if not isinstance(data.dataset("train"), MemmapImageDataset):
        return
    groups = same_pixels(data)
    places = [{split for split, _, _ in group} for group in groups]
    if across := [splits for splits in places if len(splits) > 1]:
        splits = " and ".join(split for split in data.splits if any(split in found for found in across))
        yield f"{len(across)} images are in several of {splits}, pixel by pixel: their metrics are too good"
    if unsure := sum(len({label for _, _, label in group}) > 1 for group in groups):
        yield f"{unsure} images have one label here and another there, pixel by pixel"
    if groups and not across:
        count = sum(map(len, groups)) - len(groups)
        yield f"{count} images are copies of others, pixel by pixel: all of them are in one split"


def same_pixels(data: "ImageDataModule") -> list[list[tuple[str, int, int]]]:
    """Groups of images with equal pixels: the split, the place in it and the label of each."""
    groups: dict[bytes, list[tuple[str, int, int]]] = defaultdict(list)
    for split in data.splits:
        dataset = _unread(data, split)
        for place, (digest, label) in enumerate(zip(dataset.digests(), dataset.targets.tolist(), strict=True)):
            groups[digest].append((split, place, label))
    return [group for group in groups.values() if len(group) > 1]


def _unread(data: "ImageDataModule", split: str) -> ImageDataset:
    """A split whose labels and hashes are needed. No image of the test part is read before training has ended."""
    return data.make_splits()[split]() if split == "test" else data.dataset(split)

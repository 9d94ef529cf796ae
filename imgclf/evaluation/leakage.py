"""Refuses to evaluate a network on images that it may have been trained on, as far as configurations tell."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imgclf.checkpoints.files import read_metadata
from imgclf.checkpoints.metadata import changed_splits, read_data_config
from imgclf.core.files import find_folder
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.image_folder import ImageFolder
from imgclf.data.label_table import find_table

log = logging.getLogger(__name__)

# Arguments of data modules: they say where images come from, what divides them into splits, and which of those
# decide about a test part that is drawn.
SOURCE = ("_target_", "dataset", "base", "emnist_split", "root", "labels", "train", "test")
TEST_DIVISION = ("test_fraction", "group_pattern", "columns", "label_pattern")
DIVISION = ("protocol", "val_fraction", "split_seed", "folds", "fold", "val_folder", *TEST_DIVISION)


def warn_of_changed_data(paths: Sequence[str], data: ImageDataModule) -> None:
    """Warns if the data are no longer those that a checkpoint was trained with (``changed_splits``)."""
    for path in paths:
        if changed := changed_splits(read_metadata(path), data):
            message = (
                "%s was trained with other %s images than these: it may have seen some that it is tested on, and the "
                "metrics do not compare with its own"
            )
            log.warning(message, path, " and ".join(changed))


def check_unseen(paths: Sequence[str], given: Mapping[str, Any], split: str, own: bool) -> None:
    """Raises ValueError for a split of data that may hold images that a checkpoint was trained on.

    ``given`` is the configuration of the data; ``own`` says whether these are the first checkpoint's own data, perhaps
    with some arguments changed.
    """
    if split != "test" and not own:
        raise ValueError(f"split={split}: other data may hold images the checkpoint was trained on; use split=test")
    # The larochelle protocol takes test images from the 60,000 that MNIST trains with.
    larochelle = given.get("protocol") == "larochelle"
    if not own and not larochelle and "root" not in given:
        if given.get("_target_") == "imgclf.data.amat.AmatImages":
            log.warning(
                "the digits of these files are from MNIST: a network trained on MNIST may have seen some of them"
            )
        return  # a published data set, whose test images nobody trains on
    known = [read_data_config(path) for path in paths]
    if split != "test" and any(_differing(trained_on, known[0], SOURCE + DIVISION) for trained_on in known):
        raise ValueError(f"split={split}: one network may have been trained on what another holds out; use split=test")
    for path, trained_on in zip(paths, known, strict=True):
        if larochelle and trained_on.get("protocol") != "larochelle":
            raise ValueError(
                f"protocol=larochelle: {path} may have been trained on its test images; leave the protocol out, or "
                "train with it"
            )
        if not own and not _same_folder(given, trained_on):
            continue
        # A data set comes with its test images, but a folder's test images may have been drawn.
        for name in _differing(given, trained_on, TEST_DIVISION if split == "test" else DIVISION):
            raise ValueError(
                f"{name}={given.get(name)}: the {split} images may be among those that {path} was trained on with "
                f"{name}={trained_on.get(name)}; leave {name} out"
            )


def is_other_folder(paths: Sequence[str], given: Mapping[str, Any]) -> bool:
    """Whether data are a folder of images that no checkpoint was trained on, as far as place and content tell.

    A checkpoint's own folder is recognised in another place too, as long as its training images are the same.
    """
    if given.get("_target_") != "imgclf.data.image_folder.ImageFolder":
        return False
    for path in paths:
        trained_on = read_data_config(path)
        if _same_folder(given, trained_on):
            return False
        if trained_on.pop("_target_", None) != given["_target_"]:
            continue
        place = ("root", "labels", "data_dir", "cache_dir")
        here = {name: given.get(name) for name in (*place, "image_size", "channels", "fit", "bits")}  # one decoding
        moved: dict[str, Any] = {**trained_on, **here, "skip_bad": True}
        with contextlib.suppress(ValueError, OSError):  # a folder that cannot be divided as the checkpoint's was
            known = read_metadata(path).get("fingerprints") or {}
            if known.get("train") == ImageFolder(**moved).fingerprint("train"):
                return False
    return True


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [name for name in names if one.get(name) != other.get(name)]


def _same_folder(given: Mapping[str, Any], trained_on: Mapping[str, Any]) -> bool:
    with contextlib.suppress(FileNotFoundError):
        here, there = (_folder({**data, "data_dir": given.get("data_dir")}) for data in (given, trained_on))
        return here is not None and there is not None and here.samefile(there)
    return False


def _folder(data: Mapping[str, Any]) -> Path | None:
    """The folder that data are in, if they are image files."""
    if data.get("root"):
        return find_folder(data["root"], data["data_dir"])
    return find_table(data["labels"], [Path(), Path(data["data_dir"])]).parent if data.get("labels") else None

"""Evaluates a predictor on a split: metrics, predictions and the tables and figures made of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgclf.checkpoints.files import METADATA_KEY, read_checkpoint
from imgclf.checkpoints.metadata import changed_splits, read_data_config
from imgclf.core.names import SPLITS
from imgclf.data.datamodule import ImageDataModule
from imgclf.evaluation.evaluate import log
from imgclf.imaging.image_files import find_folder

# Options of data: where images come from, what divides them into splits, and what a drawn test part depends on.
SOURCE = ("_target_", "dataset", "base", "emnist_split", "root")
DIVISION = ("protocol", "val_fraction", "split_seed", "val_folder", "test_fraction", "group_pattern")
TEST_DIVISION = ("test_fraction", "group_pattern")


def warn_of_changed_data(ckpt: str, data: ImageDataModule) -> None:
    """A line if the data are no longer what the checkpoint was trained with (``changed_splits``)."""
    if changed := changed_splits(read_checkpoint(ckpt)[METADATA_KEY], data):
        log.warning(
            "the %s images are others than when %s was trained: it may have seen some that it is tested on, and the "
            "metrics do not compare with its own",
            " and ".join(changed),
            ckpt,
        )


def check_split(split: str) -> None:
    """Raises ValueError unless ``split`` is "train", "val" or "test"."""
    if split not in SPLITS:
        raise ValueError(f"split={split}: choose one of {', '.join(SPLITS)}")


def check_unseen(paths: Sequence[str], given: Mapping[str, Any], split: str, own: bool) -> None:
    """Refuses a split that may hold images a checkpoint was trained on, as far as configurations tell.

    Args:
        paths: of the checkpoints.
        given: configuration of the data they are to be evaluated on.
        split: of those.
        own: whether they are the first checkpoint's own, with some options changed.

    Raises:
        ValueError: it may.
    """
    if split != "test" and not own:
        raise ValueError(f"split={split} of other data may hold images the checkpoint was trained on: leave data= out")
    larochelle = given.get("protocol") == "larochelle"  # its test images are among MNIST's 60,000 to train with
    if not own and not larochelle and "root" not in given:
        return
    known = [read_data_config(path) for path in paths]
    if split != "test" and any(_differing(trained_on, known[0], SOURCE + DIVISION) for trained_on in known):
        raise ValueError(f"split={split} of one network may hold images another was trained on: use split=test")
    for path, trained_on in zip(paths, known, strict=True):
        if larochelle and trained_on.get("protocol") != "larochelle":
            raise ValueError(
                f"data.protocol=larochelle has test images that {path} may have been trained on: leave it out, or "
                "train with it"
            )
        # Data sets come with test images of their own, but a folder's may be drawn.
        same = own or _same_folder(given, trained_on)
        for name in _differing(given, trained_on, DIVISION if split != "test" else TEST_DIVISION) if same else ():
            raise ValueError(
                f"data.{name}={given.get(name)}: the {split} images may be among those that {path} was trained on "
                f"with data.{name}={trained_on.get(name)}: leave it out"
            )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [name for name in names if one.get(name) != other.get(name)]


def _same_folder(given: Mapping[str, Any], trained_on: Mapping[str, Any]) -> bool:
    if not (given.get("root") and trained_on.get("root")):
        return False
    try:
        ours, theirs = (find_folder(data["root"], given["data_dir"]) for data in (given, trained_on))
        return ours.samefile(theirs)
    except FileNotFoundError:
        return False

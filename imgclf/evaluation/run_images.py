"""The images that a run or an evaluation was about, found again."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import Tensor

from imgclf.checkpoints.metadata import build_data
from imgclf.core.names import SPLITS
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset
from imgclf.imaging.image_files import read_image

THUMBNAIL = (3, 128, 128)


@dataclass(frozen=True, eq=False)
class RunImages:
    """Images by their names in predictions.csv.

    Attributes:
        files: the names.
        groups: the patient, writer or scene of each, as far as it is known.
        images: what the data of the run hold, and ``rows``, where in them each image is; else files are read.
    """

    files: Sequence[str]
    groups: list[str | None] | None = None
    images: ImageDataset | None = None
    rows: list[int] = field(default_factory=list)

    def read(self, places: Sequence[int]) -> Tensor | None:
        """Some of the images, uint8 (n, C, H, W); None if they cannot be read."""
        if self.images is not None:
            return self.images[torch.tensor([self.rows[place] for place in places], dtype=torch.int64)][0]
        try:
            pixels = [torch.from_numpy(read_image(Path(self.files[place]), THUMBNAIL, "pad")) for place in places]
        except (OSError, ValueError):
            return None
        return torch.stack(pixels) if pixels else torch.zeros(0, *THUMBNAIL, dtype=torch.uint8)


def find_run_images(sources: Sequence[str], files: Sequence[str]) -> RunImages:
    """Finds images by their names, in the data of the first run or evaluation whose config.yaml tells of them."""
    for source in sources:
        try:
            data, split = _data_of(Path(source).expanduser())
            place = {name: row for row, name in enumerate(data.image_names(split))}
            rows = [place[file] for file in files]
            groups = data.groups(split)
            return RunImages(files, [groups[row] for row in rows], data.eval_dataset(split), rows)
        except (OSError, ValueError, KeyError):  # other images than those, or none on this machine
            continue
    return RunImages(files)


def _data_of(source: Path) -> tuple[ImageDataModule, str]:
    """The data and the split that a run folder, an evaluation or a file in it is about."""
    config = OmegaConf.to_container(OmegaConf.load((source if source.is_dir() else source.parent) / "config.yaml"))
    if not isinstance(config, dict) or config.get("images") or not config.get("data", {}).get("_target_"):
        raise KeyError(f"{os.fspath(source)} does not tell its data")
    data = build_data({name: value for name, value in config["data"].items() if name != "class_map"})
    return data, config.get("split") or next(split for split in reversed(SPLITS) if split in data.splits)

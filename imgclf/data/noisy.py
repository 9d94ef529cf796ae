"""MNIST variations: a base data set whose digits are rotated and given backgrounds."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from imgclf.core import rng
from imgclf.core.names import SPLITS
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset
from imgclf.data.digits import Digits
from imgclf.data.torchvision_data import TorchvisionImages
from imgclf.transforms.backgrounds import Backgrounds, photographs
from imgclf.transforms.variations import Variation

BASES = ("mnist", "fashion_mnist", "digits")
PROTOCOLS = ("full", "larochelle")
CHUNK = 4096  # images synthesised at a time
LAROCHELLE = [10_000, 2_000, 40_000]  # of MNIST's training images; its test images join the last


class NoisyImages(ImageDataModule):
    """The variations of Larochelle et al. (2007), and digits on paper, over a base of light-on-dark images.

    Validation and test noise is drawn once, on the CPU, from a constant seed: it is the same for every run, batch
    size and device. Training noise is fresh at every epoch, or, with ``fresh=False``, drawn once from that constant
    seed as in the published protocol.

    Args:
        base: "mnist", "fashion_mnist" or "digits".
        variation: one of ``imgclf.transforms.variations.VARIATIONS``.
        protocol: "full" (the base's own train and test parts), or "larochelle": 10,000 training, 2,000 validation
            and 50,000 test images, disjoint and fixed; all but the official test images come from the training part.
        fresh: draw training noise anew at every epoch.
        backgrounds: folder of photographs for back-image; scikit-image's by default.
        data_dir: where the base's files are.
        options: of ImageDataModule.

    Raises:
        ValueError: an unknown base, variation or protocol, or the larochelle protocol over a base too small for it.
    """

    def __init__(
        self,
        base: str = "mnist",
        variation: str = "back-image",
        protocol: str = "full",
        fresh: bool = True,
        backgrounds: str | None = None,
        data_dir: str = "data",
        **options,
    ) -> None:
        for name, value, known in (("base", base, BASES), ("protocol", protocol, PROTOCOLS)):
            if value not in known:
                raise ValueError(f"data.{name}={value}: choose one of {', '.join(known)}")
        super().__init__(**options)
        if base == "digits":
            self.base = Digits(**options)
        else:
            self.base = TorchvisionImages(
                {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[base], data_dir, **options
            )
        if protocol == "larochelle" and base == "digits":
            raise ValueError("data.protocol=larochelle needs 62,000 images; data.base=digits has 1,797: use full")
        self.protocol, self.fresh, self.folder = protocol, fresh, backgrounds
        self._variations = {"train": self._variation(variation, "train"), "eval": self._variation(variation, "eval")}

    @property
    def class_names(self) -> Sequence[str]:  # pyrefly: ignore[bad-override]
        return self.base.class_names

    def preprocessing(self) -> dict[str, Any]:
        on_paper = self._variations["eval"].background in ("white", "lined", "squared")
        return {**super().preprocessing(), "polarity": "dark_on_light" if on_paper else "light_on_dark"}

    def prepare_data(self) -> None:
        self.base.prepare_data()

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        return self.base.load(split)

    def make_splits(self):
        if self.protocol == "full":
            return super().make_splits()
        return {"train": lambda: self._parts(0), "val": lambda: self._parts(1), "test": self._large_test}

    def apply_variation(self, images: ImageDataset, split: str) -> ImageDataset:
        variation = self._variations["train" if split == "train" else "eval"]
        if variation.name == "basic":
            return images
        generator = rng.generator("evaluation", SPLITS.index(split))
        varied = [
            variation(chunk.float().div_(255), generator).mul_(255).round_().to(torch.uint8)
            for chunk in images[:][0].split(CHUNK)
        ]
        return ImageDataset(torch.cat(varied), images.targets)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        # The digit is moved before it gets its background, so that no border of the background shows; noise that is
        # drawn once is there already.
        images = super().augment(images, generator)
        return self._variations["train"](images, generator) if self.fresh else images

    def train_dataset(self) -> ImageDataset:
        return self.dataset("train") if self.fresh else self.eval_dataset("train")

    def _variation(self, name: str, photos: str) -> Variation:
        backgrounds = Backgrounds(photographs(photos, self.folder)) if str(name).endswith("back-image") else None
        return Variation(name, backgrounds)

    def _parts(self, part: int) -> ImageDataset:
        """Disjoint, fixed parts of the official training images: 10,000, 2,000 and 40,000."""
        if not hasattr(self, "_official"):
            self._official = self.load_checked("train")
        images, labels = self._official
        if len(labels) < sum(LAROCHELLE):
            raise ValueError(
                f"data.protocol=larochelle needs {sum(LAROCHELLE):,} training images, not {len(labels):,}: use full"
            )
        order = torch.randperm(len(labels), generator=rng.generator("larochelle"))
        return ImageDataset(images, labels, order[: sum(LAROCHELLE)].split(LAROCHELLE)[part])

    def _large_test(self) -> ImageDataset:
        ours, official = self._parts(2), self.load_checked("test")
        return ImageDataset(torch.cat([ours[:][0], official[0]]), torch.cat([ours.targets, official[1]]))

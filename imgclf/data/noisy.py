"""MNIST variations: a base data set whose digits are rotated and given backgrounds."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from imgclf.core import rng
from imgclf.core.names import SPLITS
from imgclf.core.validation import checked
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset
from imgclf.data.digits import Digits
from imgclf.data.torchvision_data import TorchvisionImages
from imgclf.transforms.backgrounds import Backgrounds, photographs
from imgclf.transforms.compose import Compose
from imgclf.transforms.spatial import RandomAffine
from imgclf.transforms.variations import VARIATIONS, Variation

DARK_INK = ("back-white", "back-lined", "back-squared")  # endings of the variations that are dark on light
ANY_BACKGROUND = ("back-rand", "back-image")  # endings of those with noise or a photograph behind the digit
EVAL_CHUNK = 4096  # images that are varied at a time; the noise of evaluation images depends on it
# How the Larochelle protocol divides MNIST's training images; its official test images join the third part.
LAROCHELLE_SIZES = {"train": 10_000, "val": 2_000, "test": 40_000}


class NoisyImages(ImageDataModule):
    """The variations of Larochelle et al. (2007), and digits on paper, over a base of light-on-dark images.

    The noise of validation and test images is drawn once, on the CPU, from a constant seed. Training noise is fresh at
    every epoch. With ``fresh=False`` it is drawn once, from that constant seed, as in the published protocol.

    Args:
        variation: "basic", "rot", or "[rot-]back-{rand,image,white,lined,squared}".
        protocol: "full" (the base's own train and test parts), or "larochelle": 10,000 training, 2,000 validation
            and 50,000 test images, disjoint and fixed; all but the official test images come from the training part.
        backgrounds: a folder of photographs for back-image; scikit-image's by default.
        vary_backgrounds: with ``fresh``, photographs behind training digits also appear at half their size, flipped,
            turned, inverted, and in other contrast.
        data_dir: the folder that holds the base's files.
        options: arguments of ImageDataModule.

    Example:
        >>> data = NoisyImages(base="digits", variation="rot-back-lined")
        >>> images, labels = data.eval_dataset("test")[:]
    """

    @checked
    def __init__(
        self,
        base: Literal["mnist", "fashion_mnist", "digits"] = "mnist",
        variation: Literal[*VARIATIONS] = "back-image",  # pyrefly: ignore[invalid-literal]
        protocol: Literal["full", "larochelle"] = "full",
        fresh: bool = True,
        backgrounds: str | None = None,
        vary_backgrounds: bool = False,
        data_dir: str | Path = "data",
        **options: Any,
    ) -> None:
        if protocol == "larochelle" and base == "digits":
            raise ValueError("protocol=larochelle: it needs 62,000 images, and base=digits has 1,797; use full")
        super().__init__(**options)
        if protocol == "larochelle" and self.folds:
            raise ValueError(f"folds={self.folds}: protocol=larochelle has validation images of its own; use full")
        if base == "digits":
            self.base = Digits(**options)
        else:
            self.base = TorchvisionImages("MNIST" if base == "mnist" else "FashionMNIST", data_dir, **options)
        self.variation, self.protocol, self.fresh, self.backgrounds = variation, protocol, fresh, backgrounds
        behind: dict[str, Backgrounds | None] = dict.fromkeys(("train", "eval", "fresh"))
        if variation.endswith("back-image"):  # training and evaluation take patches from different photographs
            behind = {part: Backgrounds(photographs(part, backgrounds)) for part in ("train", "eval")}
            varied = Backgrounds(photographs("train", backgrounds), vary=True) if vary_backgrounds else behind["train"]
            behind["fresh"] = varied
        self._train_variation, self._eval_variation = (Variation(variation, behind[part]) for part in ("train", "eval"))
        # The random turn of fresh training digits shares one interpolation with their augmentation: training digits
        # would otherwise be more blurred than those of evaluation, which are interpolated once.
        turn = [RandomAffine(degrees=180)] if self._train_variation.rotates else []
        self._digit_augmentation = Compose([*turn, *self.augmentation.transforms])
        unturned = variation.removeprefix("rot").removeprefix("-") or "basic"
        self._fresh_background = Variation(unturned, behind["fresh"])

    @property
    def class_names(self) -> Sequence[str]:  # pyrefly: ignore[bad-override]
        return self.base.class_names

    def prepare_data(self) -> None:
        self.base.prepare_data()

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        return self.base.load(split)

    def make_splits(self) -> dict[str, Callable[[], ImageDataset]]:
        splits = super().make_splits()
        return splits if self.protocol == "full" else {**splits, "test": self._larochelle_test}

    def apply_variation(self, dataset: ImageDataset, split: str) -> ImageDataset:
        if self.variation == "basic":
            return dataset
        variation = self._train_variation if split == "train" else self._eval_variation
        generator = rng.generator("evaluation", SPLITS.index(split))
        varied = [
            variation(images.float().div_(255), generator).mul_(255).round_().to(torch.uint8)
            for images in dataset[:][0].split(EVAL_CHUNK)
        ]
        return ImageDataset(torch.cat(varied), dataset.targets)

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if not self.fresh:  # the noise is in the images already
            return super().augment(images, generator)
        # The digit is augmented before it gets its background, so that no border of the background shows.
        return self._fresh_background(self._digit_augmentation(images, generator), generator)

    def train_dataset(self) -> ImageDataset:
        return self.dataset("train") if self.fresh else self.eval_dataset("train")

    def preprocessing(self) -> dict[str, Any]:
        plain = super().preprocessing()
        if self.variation.endswith(ANY_BACKGROUND):
            return {**plain, "polarity": "any"}
        return {**plain, "polarity": "dark_on_light"} if self.variation.endswith(DARK_INK) else plain

    @functools.cached_property
    def _training_parts(self) -> dict[str, ImageDataset]:
        if self.protocol == "full":
            return super()._training_parts
        images, labels = self.load_checked("train")
        needed = sum(LAROCHELLE_SIZES.values())
        if len(labels) < needed:
            raise ValueError(
                f"protocol=larochelle: it needs {needed:,} training images, and there are {len(labels):,}; use full"
            )
        order = torch.randperm(len(labels), generator=rng.generator("larochelle"))
        parts = order[:needed].split(list(LAROCHELLE_SIZES.values()))
        return {split: ImageDataset(images, labels, rows) for split, rows in zip(LAROCHELLE_SIZES, parts, strict=True)}

    def _larochelle_test(self) -> ImageDataset:
        images, labels = self._training_parts["test"][:]
        official_images, official_labels = self.load_checked("test")
        return ImageDataset(torch.cat([images, official_images]), torch.cat([labels, official_labels]))

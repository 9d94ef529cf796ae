"""The base of the data modules: fixed splits, evaluation sets, statistics, fingerprints and batches."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import lightning.pytorch as pl
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from imgclf.core import rng
from imgclf.core.names import SPLITS
from imgclf.core.rebuild import Rebuildable
from imgclf.core.validation import Count, Fraction, Positive, Seed, checked
from imgclf.data.datasets import ImageDataset, check_images
from imgclf.data.remarks import copies, remarks
from imgclf.data.samplers import EvalBatchSampler, TrainBatchSampler, make_loader
from imgclf.data.splits import choose_split
from imgclf.transforms.compose import Compose

PLAIN_READING = {"reader": "auto", "polarity": "light_on_dark", "fit": "stretch", "bits": 16}
STATISTICS_IMAGES, STATISTICS_PIXELS = 8192, 2**25  # mean and standard deviation are computed from at most these


class ImageDataModule(Rebuildable, pl.LightningDataModule):
    """The base of the data modules. A subclass sets ``class_names`` and implements ``load(split)``.

    Batches are uint8 until they are on the device. There, training batches become float in [0, 1] and are augmented
    (and, for noisy data, varied). Validation and test images never depend on ``seed``, the batch size or the device.

    Args:
        batch_size: images of a training step, of all processes together.
        eval_batch_size: images of a validation or test step, of each process.
        val_fraction: the share of the training images that is held out for validation (see ``split_holdout``).
        split_seed: selects the validation images, independently of ``seed``.
        folds, fold: instead of ``val_fraction``: into how many folds the training images are divided (see
            ``split_fold``), and which of them, from 0, is held out.
        seed: of the order of training images, of training noise and of augmentation.
        augmentation: changes training batches only.
        balance: what is done about classes of unequal size: "none"; "weighted_loss" (rare classes weigh more in the
            loss); or "sampler" (training images are drawn with replacement, every class equally often).
        num_workers: processes that read batches; 0 is fastest for images in memory.

    Example:
        >>> data = Digits(batch_size=64, val_fraction=0.2)
        >>> images, labels = data.eval_dataset("val")[:]  # uint8 (N, 1, 28, 28), int64 (N,)
    """

    class_names: Sequence[str]

    @checked
    def __init__(
        self,
        batch_size: Positive = 128,
        eval_batch_size: Positive = 1000,
        val_fraction: Fraction = 0.1,
        split_seed: Seed = 0,
        folds: Annotated[int, Field(ge=2)] | None = None,
        fold: Count | None = None,
        seed: Seed = 0,
        augmentation: Compose | None = None,
        balance: Literal["none", "weighted_loss", "sampler"] = "none",
        num_workers: Annotated[int, Field(ge=0, le=512)] = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.folds, self.hold_out_val, self.seed = folds, choose_split(val_fraction, folds, fold, split_seed), seed
        self.augmentation, self.balance = augmentation or Compose(), balance
        self.notes: list[str] = []  # what a user should know before training, a line each
        self._datasets: dict[str, ImageDataset] = {}
        self._eval_datasets: dict[str, ImageDataset] = {}
        self._fingerprints: dict[str, str] = {}

    # A subclass implements load, and overrides the others where its data differ. ----------------------------------

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        """The official "train" or "test" part: uint8 images (N, C, H, W) and int64 labels (N,)."""
        raise NotImplementedError

    def make_splits(self) -> dict[str, Callable[[], ImageDataset]]:
        """A function for each split that gives its images; each is called at most once, when the split is needed."""
        return {
            "train": lambda: self._training_parts["train"],
            "val": lambda: self._training_parts["val"],
            "test": lambda: ImageDataset(*self.load_checked("test")),
        }

    def apply_variation(self, dataset: ImageDataset, split: str) -> ImageDataset:
        """The images as they are evaluated, the same in every run."""
        return dataset

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Turns a training batch, float (N, C, H, W) in [0, 1], into what the network is trained on."""
        return self.augmentation(images, generator)

    def train_dataset(self) -> ImageDataset:
        """The images that training batches are drawn from."""
        return self.dataset("train")

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that there are, of "train", "val" and "test"."""
        return SPLITS

    def image_names(self, split: str) -> list[str]:
        """The name of each image in predictions.csv: its file, or its number (of folds: among all training images)."""
        rows = self.dataset(split).rows
        return [str(row) for row in (rows.tolist() if self.folds and split != "test" else range(len(rows)))]

    def groups(self, split: str) -> list[str | None]:
        """The patient, writer or scene that each image of a split belongs to; None where it is not known."""
        return [None] * len(self.dataset(split))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.dataset("train").images.shape[1:]
        return channels, height, width

    def preprocessing(self) -> dict[str, Any]:
        """How an image file becomes an input of a network that is trained on these data; a checkpoint stores it.

        "reader" is "handwriting" (a digit is found in a photograph), "image_file" (the file is only scaled) or "auto"
        (classes and shape decide). "polarity" is "light_on_dark", "dark_on_light" or "any". "fit" and "bits" are
        those of ``imgclf.imaging.image_files.read_image``.
        """
        return {**PLAIN_READING, "image_shape": list(self.image_shape)}

    def remarks(self) -> list[str]:
        """What a user should know before training on the prepared data, a line each."""
        return list(dict.fromkeys([*self.notes, *remarks(self), *copies(self)]))

    # Users of a data module call these. ---------------------------------------------------------------------------

    def dataset(self, split: str) -> ImageDataset:
        """The images of "train", "val" or "test", before any variation."""
        if split not in SPLITS:
            raise ValueError(f"split={split}: choose one of {', '.join(SPLITS)}")
        if split not in self._datasets:
            self._datasets[split] = self.make_splits()[split]()
        return self._datasets[split]

    def eval_dataset(self, split: str) -> ImageDataset:
        """The images of a split as they are evaluated: with the variation, without augmentation."""
        if split not in self._eval_datasets:
            self._eval_datasets[split] = self.apply_variation(self.dataset(split), split)
        return self._eval_datasets[split]

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel over training images as evaluated, with values in [0, 1]."""
        count = max(1, min(STATISTICS_IMAGES, STATISTICS_PIXELS // math.prod(self.image_shape)))
        return self.apply_variation(ImageDataset(*self.dataset("train")[:count]), "train").mean_and_std()

    def class_weights(self) -> list[float] | None:
        """The weight of each class in the training loss, 1 on average over the images; None if all weigh the same."""
        if self.balance != "weighted_loss":
            return None
        counts = torch.bincount(self.dataset("train").targets, minlength=len(self.class_names)).double()
        return (counts.sum() / (counts.clamp_min(1) * (counts > 0).sum())).tolist()

    def fingerprint(self, split: str) -> str:
        """A hash of a split's images before any variation, their order, labels and classes (0.1 s for MNIST)."""
        if split not in self._fingerprints:
            self._fingerprints[split] = self.dataset(split).fingerprint(self.class_names)
        return self._fingerprints[split]

    def fingerprints(self) -> dict[str, str]:
        """The fingerprints of the splits that have been read; "test" is not read while training goes on."""
        return {split: self.fingerprint(split) for split in self._datasets}

    def load_checked(self, split: str) -> tuple[Tensor, Tensor]:
        """What ``load`` gives; ValueError is raised if images, labels and class names do not fit together."""
        images, labels = self.load(split)
        check_images(images, labels, len(self.class_names), f"the {split} part of the data")
        return images, labels

    def eval_dataloader(self, split: str, rank: int = 0, world: int = 1) -> DataLoader:
        """The images of a split in order, as evaluated; of several processes, each gets a share of them."""
        dataset = self.eval_dataset(split)
        return self._loader(dataset, EvalBatchSampler(len(dataset), self.eval_batch_size, rank=rank, world=world))

    # Lightning calls these. ---------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if stage == "fit":
            size = len(self.dataset("train"))
            world = self.trainer.world_size if self.trainer else 1
            if size < world:
                raise ValueError(f"{size} training images are too few for {world} processes")
            if self.batch_size > size:
                self.notes.append(
                    f"batch_size={self.batch_size} is more than the {size} training images: it is {size} now"
                )
                self.batch_size = size - size % world
            self.eval_dataset("val")

    def train_dataloader(self) -> DataLoader:
        dataset, weights = self.train_dataset(), None
        if self.balance == "sampler":
            weights = 1 / torch.bincount(dataset.targets)[dataset.targets].double()
        sampler = TrainBatchSampler(
            len(dataset),
            self.batch_size,
            seed=self.seed,
            epoch=lambda: self.trainer.current_epoch if self.trainer else 0,
            weights=weights,
            start=lambda: self._batches_done() if self.trainer and self.trainer.fit_loop.restarting else 0,
            **self._process(),
        )
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader("val", **self._process())

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        trainer = self.trainer
        is_labelled = not isinstance(batch, Tensor)  # Lightning's model summary passes images alone
        is_changed = self.augmentation or type(self).augment is not ImageDataModule.augment
        if trainer is None or not trainer.training or not is_labelled or not is_changed:
            return batch
        images, labels = batch
        # Noise depends on these numbers alone, so a resumed run draws what an undisturbed one would have drawn.
        key = (self.seed, trainer.current_epoch, self._batches_done(), trainer.global_rank)
        generator = rng.generator("noise", *key, device=images.device)
        images = self.augment(images.float().div_(255), generator)
        return self.augmentation.mix(images, labels, len(self.class_names), generator)

    def _process(self) -> dict[str, Any]:
        return {"rank": self.trainer.global_rank, "world": self.trainer.world_size} if self.trainer else {}

    def _batches_done(self) -> int:
        """How many batches of this epoch have been trained on, in an earlier session of the run or in this one."""
        # Private API: no documented hook tells a batch's number before the batch reaches the device, and nothing
        # documented tells a data module that a run is resumed within an epoch (``fit_loop.restarting``).
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready  # pyrefly: ignore[missing-attribute]

    def _loader(self, dataset: ImageDataset, sampler: TrainBatchSampler | EvalBatchSampler) -> DataLoader:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return make_loader(dataset, sampler, self.num_workers, device)

    @functools.cached_property
    def _training_parts(self) -> dict[str, ImageDataset]:
        """The official training images, divided into "train" and "val"."""
        images, labels = self.load_checked("train")
        digests = ImageDataset(images, labels).digests() if self.folds else None
        sides = self.hold_out_val(labels, digests=digests)
        return {split: ImageDataset(images, labels, rows) for split, rows in zip(("train", "val"), sides, strict=True)}

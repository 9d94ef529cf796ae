"""What every data module shares: fixed splits, batches as one indexing operation, transforms on the device."""

import hashlib
import json
import math
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from imgclf.core import rng
from imgclf.core.names import SPLITS
from imgclf.core.rebuild import Rebuildable
from imgclf.data.datasets import ImageDataset
from imgclf.data.samplers import BatchSampler
from imgclf.data.splits import hold_out
from imgclf.transforms.compose import Compose

ON_THIS_MACHINE = ("data_dir", "cache_dir")  # arguments that say where files are, which no checkpoint keeps
MOST_WORKERS = 512
BALANCES = ("none", "weighted_loss", "sampler")
RESIDENT = 0.25  # of a GPU's free memory that a split may take
STATISTICS_FROM = 8192, 2**25  # images and pixels at most


class ImageDataModule(Rebuildable, pl.LightningDataModule):
    """Base of the data modules: subclasses say where images come from, this class does the rest.

    A subclass sets ``class_names`` and implements ``load(split)``; see README, "Add a data set". Batches are uint8
    until they are on the device; there training batches become float in [0, 1] and are augmented (and, for noisy
    data, varied). Validation and test images never depend on ``seed``, batch size or device.

    Args:
        batch_size: images a training step, of all processes together.
        eval_batch_size: images a validation or test step, of each process.
        val_fraction: share of the training images kept for validation, in (0, 1), stratified by class where each
            class has enough images.
        split_seed: chooses which; independent of ``seed``.
        seed: order of training batches, training noise and augmentation.
        augmentation: applied to training batches only.
        balance: for classes of unequal size: "none"; "weighted_loss", images weighted against their class's share;
            or "sampler", training images drawn with replacement, every class as often.
        num_workers: processes that read batches; 0 is fastest for images in memory.

    Raises:
        ValueError: an argument out of range, or (from ``setup``) a batch larger than the training split.
    """

    class_names: Sequence[str]

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        seed: int = 0,
        augmentation: Compose | None = None,
        balance: str = "none",
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for name, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"data.{name}={value}: give a whole number from 1 up")
        if not isinstance(num_workers, int) or not 0 <= num_workers <= MOST_WORKERS:
            raise ValueError(f"data.num_workers={num_workers}: give a whole number from 0 to {MOST_WORKERS}")
        for name, value in (("split_seed", split_seed), ("seed", seed)):
            if not isinstance(value, int) or not 0 <= value < 2**32:
                raise ValueError(f"data.{name}={value}: give a whole number from 0 up to {2**32 - 1}")
        if not isinstance(val_fraction, int | float) or not 0 < val_fraction < 1:
            raise ValueError(f"data.val_fraction={val_fraction}: give a share between 0 and 1, such as 0.1")
        if balance not in BALANCES:
            raise ValueError(f"data.balance={balance}: choose one of {', '.join(BALANCES)}")
        self.batch_size, self.eval_batch_size, self.num_workers = batch_size, eval_batch_size, num_workers
        self.val_fraction, self.split_seed, self.seed = val_fraction, split_seed, seed
        self.augmentation, self.balance = augmentation, balance
        self._draws = bool(augmentation) or type(self).augment is not ImageDataModule.augment
        self._splits: dict[str, ImageDataset] = {}
        self._evaluated: dict[str, ImageDataset] = {}
        self._fingerprints: dict[str, str] = {}

    # What a subclass provides -----------------------------------------------------------------------------------

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        """The official "train" or "test" part: uint8 images (N, C, H, W) and int64 labels (N,)."""
        raise NotImplementedError

    def load_checked(self, split: str) -> tuple[Tensor, Tensor]:
        """What ``load`` gives; raises ValueError if images, labels and class names do not fit together."""
        images, labels = self.load(split)
        fault = None
        if images.dtype != torch.uint8 or images.ndim != 4 or labels.dtype != torch.int64 or labels.ndim != 1:
            fault = "images must be uint8 (N, C, H, W), labels int64 (N,)"
        elif len(images) != len(labels) or not len(labels):
            fault = f"{len(images)} images but {len(labels)} labels"
        elif labels.min() < 0 or labels.max() >= len(self.class_names):
            fault = f"labels outside 0..{len(self.class_names) - 1}"
        if fault:
            raise ValueError(f"the {split} part of the data: {fault}")
        return images, labels

    def make_splits(self) -> dict[str, Callable[[], ImageDataset]]:
        """How each split is obtained; each is called at most once, and "test" only when it is asked for."""
        return {
            "train": lambda: self._halves()[0],
            "val": lambda: self._halves()[1],
            "test": lambda: ImageDataset(*self.load_checked("test")),
        }

    def apply_variation(self, images: ImageDataset, split: str) -> ImageDataset:
        """The images as they are evaluated; the same for every run."""
        return images

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Float training batch in [0, 1] to what the network is trained on."""
        return self.augmentation(images, generator) if self.augmentation else images

    # What users of a data module see ----------------------------------------------------------------------------

    def dataset(self, name: str) -> ImageDataset:
        """The images of "train", "val" or "test", before any variation."""
        if name not in SPLITS:
            raise ValueError(f"split {name!r}: choose one of {', '.join(SPLITS)}")
        if name not in self._splits:
            self._splits[name] = self.make_splits()[name]()
        return self._splits[name]

    def eval_dataset(self, name: str) -> ImageDataset:
        """The images of a split as they are evaluated: varied, never augmented."""
        if name not in self._evaluated:
            self._evaluated[name] = self.apply_variation(self.dataset(name), name)
        return self._evaluated[name]

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation per channel, of values in [0, 1], over training images as evaluated."""
        images, pixels = STATISTICS_FROM
        sample = ImageDataset(*self.dataset("train")[: max(1, min(images, pixels // math.prod(self.image_shape)))])
        values = self.apply_variation(sample, "train").images.double() / 255
        return values.mean((0, 2, 3)).tolist(), values.std((0, 2, 3)).clamp_min(1e-3).tolist()

    def class_weights(self) -> list[float] | None:
        """What each class's images weigh in the training loss, 1 on average; None for all the same."""
        if self.balance != "weighted_loss":
            return None
        counts = torch.bincount(self.dataset("train").targets, minlength=len(self.class_names)).double()
        return (counts.sum() / (counts.clamp_min(1) * (counts > 0).sum())).tolist()

    def image_names(self, split: str) -> list[str]:
        """What each image of a split is called in predictions.csv: its file, or its number."""
        return [str(i) for i in range(len(self.dataset(split)))]

    def fingerprint(self, split: str) -> str:
        """A hash of a split's images before any variation, their order, labels and class names.

        The same on every machine; 0.1 s for MNIST.
        """
        if split not in self._fingerprints:
            self._fingerprints[split] = self._hashed(self.dataset(split))
        return self._fingerprints[split]

    def fingerprints(self) -> dict[str, str]:
        """Those of the splits that have been read: while training goes on, "test" has not."""
        return {split: self.fingerprint(split) for split in self._splits}

    def groups(self, split: str) -> list[str | None]:
        """Whose image each one of a split is (a patient's, a writer's), where that is known."""
        return [None] * len(self.dataset(split))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.dataset("train").images.shape[1:]
        return channels, height, width

    def preprocessing(self) -> dict[str, Any]:
        """How an image file becomes an input of the network, in plain types that a checkpoint keeps.

        Returns:
            image_shape: [channels, height, width]; reader: "auto", "image_file" or "handwriting"; polarity:
            "light_on_dark" or "dark_on_light" (see ``imgclf.inference.predictor.Predictor``).
        """
        return {"image_shape": list(self.image_shape), "reader": "auto", "polarity": "light_on_dark"}

    # Lightning's hooks ------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if stage == "fit":
            size = len(self.dataset("train"))
            if self.batch_size > size:
                raise ValueError(f"data.batch_size={self.batch_size} is larger than the {size} training images")
            self.eval_dataset("val")

    def train_dataloader(self) -> DataLoader:
        images, weights = self.train_dataset(), None
        if self.balance == "sampler":
            weights = 1 / torch.bincount(images.targets)[images.targets].double()
        order = self.seed, lambda: self.trainer.current_epoch if self.trainer else 0, weights
        return self._loader(images, BatchSampler(len(images), self.batch_size, *order, *self._place(), self._start))

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader("val", *self._place())

    def test_dataloader(self) -> DataLoader:
        return self.eval_dataloader("test", *self._place())

    def eval_dataloader(self, split: str, rank: int = 0, world: int = 1) -> DataLoader:
        """A split in order, un-augmented; or the share of it that process ``rank`` of ``world`` gets."""
        images = self.eval_dataset(split)
        return self._loader(images, BatchSampler(len(images), self.eval_batch_size, rank=rank, world=world))

    def _hashed(self, images: ImageDataset) -> str:
        parts = json.dumps(list(self.class_names)).encode(), images.targets.numpy().tobytes(), *images.digests()
        return hashlib.blake2b(b"".join(parts), digest_size=8).hexdigest()

    def _place(self) -> tuple[int, int]:
        """This process's rank, and how many there are."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _start(self) -> int:
        """The batches of this epoch that the session before has done, if it was stopped within the epoch."""
        loop = self.trainer.fit_loop if self.trainer else None
        return loop.epoch_loop.batch_progress.current.ready if loop and loop.restarting else 0

    def train_dataset(self) -> ImageDataset:
        """What training batches are drawn from."""
        return self.dataset("train")

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        trainer = self.trainer
        if not (trainer and trainer.training and self._draws) or isinstance(batch, Tensor):  # the model summary's
            return batch
        images, labels = batch
        step = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        key = (self.seed, trainer.current_epoch, step, trainer.global_rank)
        generator = rng.generator("noise", *key, device=images.device)
        images = self.augment(images.float().div_(255), generator)
        if self.augmentation:
            return self.augmentation.mix(images, labels, len(self.class_names), generator)
        return images, labels

    def _loader(self, images: ImageDataset, batches: BatchSampler) -> DataLoader:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        resident = self.num_workers == 0 and _fits(images, device)
        if resident:
            images, batches.device = images.to(device), device
        # batch_size=None: the sampler's items are whole batches already.
        return Loader(
            images,
            sampler=batches,
            batch_size=None,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            worker_init_fn=_leave_signals_to_the_run,
            pin_memory=device.type == "cuda" and not resident,
        )

    def _halves(self) -> tuple[ImageDataset, ImageDataset]:
        images, labels = self.load_checked("train")
        parts = hold_out(labels, self.val_fraction, self.split_seed, "data.val_fraction")
        train, val = (ImageDataset(images, labels, rows) for rows in parts)
        self._splits["train"], self._splits["val"] = train, val
        return train, val


class Loader(DataLoader):
    """Asks its sampler for nothing until the first batch is wanted.

    Workers would have it asked when the iterator is made: Lightning does that before a resumed run knows its epoch.
    Without workers a batch is the data set's own, which DataLoader would search for what is no tensor yet.
    """

    def __iter__(self) -> Iterator:  # pyrefly: ignore[bad-override]
        if self.num_workers or self.pin_memory:
            yield from super().__iter__()
        else:
            yield from map(self.dataset.__getitem__, self.sampler)


def _fits(images: ImageDataset, device: torch.device) -> bool:
    """Whether a GPU has memory left for the images to stay there, where drawing a batch costs next to nothing."""
    return device.type == "cuda" and images.nbytes <= RESIDENT * torch.cuda.mem_get_info(device)[0]


def _leave_signals_to_the_run(worker: int) -> None:
    """Ctrl-C and a cluster's signals reach workers too, whose batch the step is waiting for that the run ends with."""
    for name in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)
    # Told a second time it ends: so does a process that has not ended its workers otherwise.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))

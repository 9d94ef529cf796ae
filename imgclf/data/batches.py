"""The batches that Lightning asks a data module for: they are drawn by row numbers, and augmented on the device."""

from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from imgclf.core import rng
from imgclf.data.datasets import ImageDataset
from imgclf.data.loader import make_loader
from imgclf.data.samplers import EvalBatchSampler, TrainBatchSampler
from imgclf.transforms.compose import Compose


class BatchesForLightning(pl.LightningDataModule):
    """The loaders and hooks of ``ImageDataModule``, which sets the attributes and says which images there are.

    A batch is uint8 until it is on the device. There, a training batch becomes float in [0, 1] and is augmented.
    """

    class_names: Sequence[str]
    batch_size: int
    eval_batch_size: int
    num_workers: int
    seed: int
    augmentation: Compose | None
    balance: str

    def dataset(self, split: str) -> ImageDataset:
        raise NotImplementedError

    def eval_dataset(self, split: str) -> ImageDataset:
        raise NotImplementedError

    def train_dataset(self) -> ImageDataset:
        """The images that training batches are drawn from."""
        return self.dataset("train")

    def augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Turns a training batch, float (N, C, H, W) in [0, 1], into what the network is trained on."""
        return self.augmentation(images, generator) if self.augmentation else images

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
            rank=self._rank(),
            world=self._world(),
            start=lambda: self._batches_done() if self.trainer and self.trainer.fit_loop.restarting else 0,
        )
        return self._loader(dataset, sampler)

    def val_dataloader(self) -> DataLoader:
        return self.eval_dataloader("val", self._rank(), self._world())

    def eval_dataloader(self, split: str, rank: int = 0, world: int = 1) -> DataLoader:
        """The images of a split in order, as evaluated; of several processes, each gets a share of them."""
        dataset = self.eval_dataset(split)
        sampler = EvalBatchSampler(len(dataset), self.eval_batch_size, rank=rank, world=world)
        return self._loader(dataset, sampler)

    def on_after_batch_transfer(self, batch: tuple[Tensor, Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        trainer = self.trainer
        is_labelled = not isinstance(batch, Tensor)  # Lightning's model summary passes images alone
        if trainer is None or not trainer.training or not is_labelled or not self._changes_batches():
            return batch
        images, labels = batch
        # Noise depends on these numbers alone, so a resumed run draws what an undisturbed one would have drawn.
        key = (self.seed, trainer.current_epoch, self._batches_done(), trainer.global_rank)
        generator = rng.generator("noise", *key, device=images.device)
        images = self.augment(images.float().div_(255), generator)
        if self.augmentation:
            return self.augmentation.mix(images, labels, len(self.class_names), generator)
        return images, labels

    def _changes_batches(self) -> bool:
        return bool(self.augmentation) or type(self).augment is not BatchesForLightning.augment

    def _batches_done(self) -> int:
        """How many batches of this epoch have been trained on, in an earlier session of the run or in this one."""
        # Private API: no documented hook tells a batch's number before the batch reaches the device, and nothing
        # documented tells a data module that a run is resumed within an epoch (``fit_loop.restarting``).
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.ready  # pyrefly: ignore[missing-attribute]

    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer else 0

    def _world(self) -> int:
        return self.trainer.world_size if self.trainer else 1

    def _loader(self, dataset: ImageDataset, sampler: TrainBatchSampler | EvalBatchSampler) -> DataLoader:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        return make_loader(dataset, sampler, self.num_workers, device)

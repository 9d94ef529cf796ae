"""The LightningModule that trains any network."""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from imgclf import seed as seeding
from imgclf.checkpoint import describe
from imgclf.metrics import StageMetrics
from imgclf.models.network import Network


class Classifier(pl.LightningModule):
    """Cross-entropy training of a network, with normalisation inside, so that it travels with the weights.

    Args:
        network: maps normalised float images (N, C, H, W) to logits (N, classes).
        class_names: one a class, in the order of the class indices.
        mean: per channel, of values in [0, 1]; with ``std``, what images are normalised by.
        std: per channel.
        optimizer: makes the optimizer from parameters; Adam at its default rate of 0.001.
        scheduler: makes the learning-rate scheduler from the optimizer, or None. Where its signature has
            ``total_steps`` or ``T_max`` and the factory does not set it, the run's estimated length is supplied.
        scheduler_interval: "step" or "epoch".
        scheduler_monitor: the metric a plateau scheduler watches.
        label_smoothing: share of the target spread over all classes, in [0, 1).
        channels_last: keep weights and activations in that memory format, which convolutions are faster in.
        seed: of dropout, which depends on it, the epoch and the step only.

    Raises:
        ValueError: an argument out of range.
        FloatingPointError: the loss is no longer finite; the message names the step.
    """

    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        optimizer: Callable[..., Optimizer] = Adam,
        scheduler: Callable[..., LRScheduler] | None = None,
        scheduler_interval: str = "step",
        scheduler_monitor: str | None = None,
        label_smoothing: float = 0.0,
        channels_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"model.label_smoothing={label_smoothing}: give a share from 0 up to, not including, 1")
        if scheduler_interval not in ("step", "epoch"):
            raise ValueError(f"scheduler.interval={scheduler_interval}: choose step or epoch")
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.network, self.class_names = network.to(memory_format=memory_format), list(class_names)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", torch.as_tensor(std, dtype=torch.float32).view(-1, 1, 1))
        self.optimizer, self.scheduler = optimizer, scheduler
        self.scheduler_interval, self.scheduler_monitor = scheduler_interval, scheduler_monitor
        self.label_smoothing, self.seed = label_smoothing, seed
        # Not registered as submodules: they are no part of the network that a summary or a checkpoint shows.
        self._metrics = {stage: StageMetrics(stage, len(self.class_names)) for stage in ("train", "val", "test")}
        self.example_input_array = torch.zeros(1, *network.hparams["image_shape"])  # for the model summary
        self.live: dict[str, float] = {}  # loss and accuracy over the last logging interval, for the progress bar
        self._pending: list[tuple[int, Tensor, Tensor, Tensor]] = []

    def forward(self, images: Tensor) -> Tensor:
        """uint8, or float in [0, 1], (N, C, H, W) to logits (N, classes)."""
        scale = 1 if images.is_floating_point() else 255
        return self.network((images.to(self.mean.dtype) / scale - self.mean) / self.std)

    def on_fit_start(self) -> None:
        describe(self, self.trainer.datamodule)  # what cannot be described fails now, not at the first checkpoint

    def on_train_epoch_start(self) -> None:
        self._pending.clear()

    def on_train_batch_start(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        step_seed = seeding.derive("dropout", self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.default_generator.manual_seed(step_seed)  # torch.manual_seed takes 0.1 ms where CUDA is built in
        if self.device.type != "cpu":
            torch.get_device_module(self.device).manual_seed(step_seed)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self(images).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        # Kept on the device and looked at every few steps: asking every step would make a GPU wait.
        self._pending.append((self.global_step + 1, loss.detach(), logits.detach().argmax(1), labels))
        last = self.trainer.is_last_batch
        if last or len(self._pending) >= max(1, self.trainer.log_every_n_steps):
            self._account()
        if last:
            values = {**self._metrics["train"].compute(), "lr": self._rate()}
            self.log_dict(values, batch_size=1, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def on_validation_epoch_end(self) -> None:
        values = self._metrics["val"].compute()
        if not values["val/loss"].isfinite():
            raise self._diverged(float(values["val/loss"]), self.global_step, "val/loss")
        self.log_dict(values)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, "test")

    def on_test_epoch_end(self) -> None:
        self.log_dict(self._metrics["test"].compute())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        length = steps if self.scheduler_interval == "step" else self.trainer.max_epochs
        factory = self.scheduler
        given = factory.keywords if isinstance(factory, partial) else {}
        known = inspect.signature(factory).parameters
        supplied = {name: length for name in ("total_steps", "T_max") if name in known and given.get(name) is None}
        config = {"scheduler": factory(optimizer, **supplied), "interval": self.scheduler_interval}
        if self.scheduler_monitor:
            config["monitor"] = self.scheduler_monitor
        return {"optimizer": optimizer, "lr_scheduler": config}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint["imgclf"] = describe(self, self.trainer.datamodule)

    def _evaluate(self, batch: tuple[Tensor, Tensor], stage: str) -> None:
        images, labels = batch
        logits = self(images).float()
        metrics = self._metrics[stage].to(self.device)
        metrics.update(F.cross_entropy(logits, labels, reduction="none"), logits.argmax(1), labels)

    def _account(self) -> None:
        """Adds the pending steps to the epoch's metrics, checks their losses and logs them."""
        steps, losses, predicted, labels = zip(*self._pending, strict=True)
        sizes = torch.tensor([len(batch) for batch in labels], device=self.device)
        losses, predicted, labels = torch.stack(losses), torch.cat(predicted), torch.cat(labels)
        for step, loss in zip(steps, losses.tolist(), strict=True):
            if not math.isfinite(loss):
                raise self._diverged(loss, step, "loss")
        losses = losses.repeat_interleave(sizes)
        self._metrics["train"].to(self.device).update(losses, predicted, labels)
        self.live = {
            "loss": float(losses.mean()),
            "accuracy": float((predicted == labels).float().mean()),
        }
        self._pending.clear()
        for logger in self.loggers:
            values = {f"step/{name}": value for name, value in self.live.items()}
            logger.log_metrics({**values, "step/lr": self._rate()}, step=self.global_step)

    def _rate(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def _diverged(self, value: float, step: int, name: str) -> FloatingPointError:
        return FloatingPointError(
            f"{name} became {value} at step {step} (epoch {self.current_epoch + 1}): training stopped. Lower "
            f"optimizer.lr (now {self._rate():g}) or set trainer.gradient_clip_val=1; earlier checkpoints are kept"
        )

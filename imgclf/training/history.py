"""The record of every epoch: metrics, learning rate and speed."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

log = logging.getLogger(__name__)


class History(pl.Callback):
    """Keeps one row an epoch. It is part of the checkpoint, so that a resumed run continues it.

    Args:
        on_epoch: called by the first process with all rows so far, once the checkpoint of an epoch has been saved.

    Attributes:
        rows: one dict an epoch: "epoch" and "step" from 1, the metrics, "images_per_second" (0 where an epoch was
            resumed for its validation only) and "seconds" so far.
        seconds: time of training and validation, over all sessions.
    """

    def __init__(self, on_epoch: Callable[[list[dict[str, Any]]], object]) -> None:
        self.rows: list[dict[str, Any]] = []
        self.seconds = 0.0
        self._on_epoch = on_epoch
        self._counted_until = time.perf_counter()
        self._begin_epoch()

    @staticmethod
    def of(trainer: pl.Trainer) -> "History":
        """The History among the trainer's callbacks."""
        return next(callback for callback in trainer.callbacks if isinstance(callback, History))  # pyrefly: ignore[missing-attribute]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds + time.perf_counter() - self._counted_until}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.seconds = list(state_dict["rows"]), state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._counted_until = time.perf_counter()
        self._begin_epoch()  # an epoch that is resumed gets no on_train_epoch_start

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)
        self._begin_epoch()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        for logger in trainer.loggers:
            logger.save()  # a run that resumes from this checkpoint does not log again what was logged before it

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        self._images += len(batch[1]) * trainer.world_size  # every process has an equal share of the batch
        self._end = time.perf_counter()  # the last batch's time counts, because validation follows

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        self.seconds += now - self._counted_until
        self._counted_until = now
        speed = self._images / (self._end - self._start) if self._images else 0.0
        found = trainer.callback_metrics
        names = sorted({*found, *(name.replace("val/", "train/") for name in found)})
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            # NaN: an epoch that is resumed in its validation has no training metrics.
            **{name: float(found.get(name, math.nan)) for name in names},
            "images_per_second": speed,
            "seconds": self.seconds,
        }
        self.rows.append(row)
        for logger in trainer.loggers:
            logger.log_metrics({"images_per_second": speed}, step=trainer.global_step - 1)
        shown = [row[f"{split}/{name}"] for name in ("loss", "accuracy") for split in ("train", "val")]
        line = "epoch %d/%s:  loss %.4f val %.4f  accuracy %.4f val %.4f  %s img/s"
        log.info(line, row["epoch"], trainer.max_epochs, *shown, f"{speed:,.0f}")

    def _begin_epoch(self) -> None:
        self._start = self._end = time.perf_counter()
        self._images = 0

    def _write(self, trainer: pl.Trainer) -> None:
        if self.rows and trainer.is_global_zero:
            self._on_epoch(self.rows)

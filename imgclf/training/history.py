"""What happens around training: the progress bar, checkpoints, the record of every epoch, pictures of it."""

import math
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

from imgclf.training.callbacks import log


class History(pl.Callback):
    """One row an epoch: metrics, learning rate and speed. Part of the checkpoint, so a resumed run continues it.

    Args:
        on_epoch: called with all rows so far once an epoch has been saved, to write them down; of several processes,
            by the first only.
    """

    def __init__(self, on_epoch: Callable[[list[dict[str, Any]]], object] = lambda rows: None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.seconds = 0.0  # of training and validation, over all sessions
        self._mark = time.perf_counter()
        self._on_epoch = on_epoch

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds + time.perf_counter() - self._mark}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows, self.seconds = list(state_dict["rows"]), state_dict["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.perf_counter()
        self._start, self._end, self._images = self._mark, self._mark, 0  # for an epoch that is resumed in the middle

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)
        self._start = self._end = time.perf_counter()
        self._images = 0

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._write(trainer)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        for logger in trainer.loggers:
            logger.save()  # what was logged before a checkpoint is not logged again by a run that resumes from it

    def _write(self, trainer: pl.Trainer) -> None:
        if self.rows and trainer.is_global_zero:
            self._on_epoch(self.rows)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        self._images += len(batch[1]) * trainer.world_size  # processes have equal shares of a batch
        self._end = time.perf_counter()  # the last one of the epoch stands: validation follows

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        self.seconds += now - self._mark
        self._mark = now
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            **{name: float(value) for name, value in sorted(trainer.callback_metrics.items())},
            # None where the epoch was resumed for its validation only.
            "images_per_second": self._images / (self._end - self._start) if self._images else 0.0,
            "seconds": self.seconds,
        }
        self.rows.append(row)
        for logger in trainer.loggers:
            logger.log_metrics({"images_per_second": row["images_per_second"]}, step=trainer.global_step - 1)
        log.info(
            "epoch %d/%s  loss %.4f val %.4f  accuracy %.4f val %.4f  %s img/s",
            row["epoch"],
            trainer.max_epochs,
            *(row.get(f"{stage}/{name}", math.nan) for name in ("loss", "accuracy") for stage in ("train", "val")),
            f"{row['images_per_second']:,.0f}",
        )

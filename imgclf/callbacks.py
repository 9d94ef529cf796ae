"""What happens around training: the progress bar and the record of every epoch."""

import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar

log = logging.getLogger(__name__)

REFRESH_EVERY = 10  # steps; drawing at every step would take a small network's time


class ProgressBar(RichProgressBar):
    """Lightning's rich bar with the classifier's live loss and accuracy."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % REFRESH_EVERY == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"  # Lightning counts from 0

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        validated = trainer.callback_metrics.get("val/accuracy")
        return pl_module.live if validated is None else {**pl_module.live, "val/accuracy": float(validated)}


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint for a run folder that may have been moved since the checkpoint was written."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(self.dirpath) / Path(path).name) if path else path

        paths = {name: here(state[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state["best_k_models"].items()}
        super().load_state_dict({**state, **paths, "best_k_models": best, "dirpath": self.dirpath})


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, which forgets in a resumed run that it had stopped already."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience


class Termination(pl.Callback):
    """Lets SIGTERM end one of several processes as Ctrl-C does.

    Lightning's handler has the process tell the others by a broadcast; they are in the middle of a step, and hang or
    abort. They stop by themselves when this one has gone.
    """

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # Lightning restores what was there before


class History(pl.Callback):
    """One row an epoch: metrics, learning rate and speed. Part of the checkpoint, so a resumed run continues it.

    Args:
        on_epoch: called with all rows so far, to write them down; of several processes, by the first only.
    """

    def __init__(self, on_epoch: Callable[[list[dict[str, Any]]], None] = lambda rows: None) -> None:
        self.rows: list[dict[str, Any]] = []
        self.seconds = 0.0  # of training and validation, over all sessions
        self._on_epoch = on_epoch

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.seconds = list(state["rows"]), state["seconds"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._mark = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start, self._images = time.perf_counter(), 0

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
            "images_per_second": self._images / (self._end - self._start),
            "seconds": self.seconds,
        }
        self.rows.append(row)
        for logger in trainer.loggers:
            logger.log_metrics({"images_per_second": row["images_per_second"]}, step=trainer.global_step)
        if trainer.is_global_zero:
            self._on_epoch(self.rows)
        log.info(
            "epoch %d/%s  loss %.4f val %.4f  accuracy %.4f val %.4f  %s img/s",
            row["epoch"],
            trainer.max_epochs,
            *(row[f"{stage}/{name}"] for name in ("loss", "accuracy") for stage in ("train", "val")),
            f"{row['images_per_second']:,.0f}",
        )

"""What happens around training: the progress bar, checkpoints, the record of every epoch, pictures of it."""

import logging
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from imgclf import figures

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


class Dashboard(pl.Callback):
    """What TensorBoard shows besides scalars while a run goes on.

    Curves, the confusion matrix on validation images and, of two classes, their precision-recall curve.

    Args:
        every_n_epochs: how often, from 1.
        weights: histograms of the weights as well.

    Raises:
        ValueError: every_n_epochs is no whole number from 1 up.
    """

    def __init__(self, every_n_epochs: int = 5, weights: bool = False) -> None:
        if not isinstance(every_n_epochs, int) or every_n_epochs < 1:
            raise ValueError(f"callbacks.dashboard.every_n_epochs={every_n_epochs}: give a whole number from 1 up")
        self.every_n_epochs, self.weights = every_n_epochs, weights

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epoch, step, validated = trainer.current_epoch + 1, trainer.global_step, pl_module.validated
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if epoch % self.every_n_epochs or not boards or not trainer.is_global_zero:
            return
        rows = next(callback for callback in trainer.callbacks if isinstance(callback, History)).rows
        counts, names = validated.counted.cpu(), pl_module.class_names
        matrix = figures.confusion_matrix(counts, names, f"validation, epoch {epoch}")
        drawn = {"val/confusion_matrix": matrix, "curves": figures.curves(rows)}
        for board in boards:
            for name, figure in drawn.items():
                board.add_image(name, figures.render(figure), step, dataformats="HWC")
            if validated.answered:
                scores, labels = validated.answered
                board.add_pr_curve("val/precision_recall", labels, scores, step)
            for name, weight in pl_module.network.named_parameters() if self.weights else ():
                board.add_histogram(f"weights/{name}", weight, step)


class EMA(EMAWeightAveraging):
    """Lightning's exponential moving average of the weights, which is what is validated and saved.

    The threshold that validation chose belongs to the averaged weights as it is, not as an average of its own.
    """

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._average_model is not None:  # as outside fit
            self._average_model.module.threshold.copy_(pl_module.threshold)

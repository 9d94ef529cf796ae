"""What happens around training: the progress bar, checkpoints, the record of every epoch, pictures of it."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment

from imgclf import figures
from imgclf.distributed import Terminated, terminate
from imgclf.models.classifier import Classifier

log = logging.getLogger(__name__)

REFRESH_EVERY = 10  # steps; drawing at every step would take a small network's time


class ProgressBar(RichProgressBar):
    """Lightning's rich bar with the classifier's live loss and accuracy."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % REFRESH_EVERY == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"  # Lightning counts from 0

    def get_metrics(self, trainer: pl.Trainer, pl_module: Classifier) -> dict[str, float]:  # pyrefly: ignore[bad-override]
        validated = trainer.callback_metrics.get("val/accuracy")
        return pl_module.live if validated is None else {**pl_module.live, "val/accuracy": float(validated)}


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint for a run folder that may have been moved since the checkpoint was written."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(self.dirpath) / Path(path).name) if path and self.dirpath else path

        paths = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        # That an epoch's checkpoint is not due within it takes Lightning as long to find out as a batch to draw.
        if self._every_n_train_steps or self._train_time_interval is not None:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's, which forgets in a resumed run that it had stopped already."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience


class Interruption(pl.Callback):
    """Ends a run on Ctrl-C, SIGTERM or SLURM's requeue signal (SIGUSR1) after the step it is in, saved as last.ckpt.

    Within validation what is saved is the epoch before it. Asked again by Ctrl-C, the run ends at once. Signals that
    something else handles already, such as submitit, are left alone.

    Several processes end at once, with the checkpoint of the last whole epoch: a signal need not have reached all of
    them, and whoever waits for one that has gone hangs or aborts, as does the broadcast of Lightning's own handler.

    Args:
        checkpoint: the file.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint, self._received = checkpoint, 0
        self._signals: list[int] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        requeue = [signal.SIGUSR1] if SLURMEnvironment.detect() else []
        free = (signal.SIG_DFL, signal.default_int_handler, terminate)
        self._signals = [name for name in (signal.SIGINT, signal.SIGTERM, *requeue) if signal.getsignal(name) in free]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def receive(number: int, frame: Any) -> None:
            again, self._received = self._received, self._received or number
            if trainer.world_size > 1 or (again and number == signal.SIGINT):
                self._end(trainer)

        if threading.current_thread() is threading.main_thread():
            for name in self._signals:
                signal.signal(name, receive)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        whole = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self._received and whole and not trainer.is_last_batch:  # after the last one comes validation
            self._save_and_end(trainer)

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args, **kwargs) -> None:
        if self._received and trainer.state.fn == "fit":
            # What tells a resumed run that it has to validate, and Lightning notes within a batch only.
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            progress.reset()
            progress.increment_ready()
            progress.increment_started()
            self._save_and_end(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._received:  # at the end of the epoch before, which is saved already
            self._end(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._received:
            self._end(trainer)

    def _save_and_end(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self._checkpoint, weights_only=False)
        self._end(trainer)

    def _end(self, trainer: pl.Trainer) -> None:
        if self._received == signal.SIGUSR1 and trainer.is_global_zero:
            job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
            if array:
                job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
            subprocess.run(["scontrol", "requeue", job], check=True)
        raise KeyboardInterrupt if self._received == signal.SIGINT else Terminated


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

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Classifier) -> None:  # pyrefly: ignore[bad-override]
        # Steps count from 0, as Lightning has it: a checkpoint's own step is the first that comes after it.
        epoch, step, validated = trainer.current_epoch + 1, trainer.global_step - 1, pl_module.validated
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if epoch % self.every_n_epochs or not boards or not trainer.is_global_zero or validated.counted is None:
            return
        rows = next(callback for callback in trainer.callbacks if isinstance(callback, History)).rows  # pyrefly: ignore[missing-attribute]
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

    Args:
        decay: share of the average that a step leaves as it is.
        update_every_n_steps: from 1.
        options: of Lightning's callback.

    Raises:
        ValueError: ``decay`` is not in [0, 1), or ``update_every_n_steps`` no whole number from 1 up.
    """

    def __init__(self, decay: float = 0.999, update_every_n_steps: int = 1, **options: Any) -> None:
        if not isinstance(decay, int | float) or not 0 <= decay < 1:
            raise ValueError(f"callbacks.ema.decay={decay}: give a share from 0 up to, not including, 1")
        if not isinstance(update_every_n_steps, int) or update_every_n_steps < 1:
            raise ValueError(
                f"callbacks.ema.update_every_n_steps={update_every_n_steps}: give a whole number from 1 up"
            )
        super().__init__(decay=decay, update_every_n_steps=update_every_n_steps, **options)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._average_model is not None:  # as outside fit
            self._average_model.module.get_buffer("threshold").copy_(pl_module.get_buffer("threshold"))

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if trainer.validating:  # the two have changed places
            names = "state_dict", "current_model_state"
            checkpoint.update(zip(names, [checkpoint[name] for name in reversed(names)], strict=True))

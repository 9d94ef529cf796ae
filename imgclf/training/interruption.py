"""Stops a run on Ctrl-C or a signal, with a checkpoint that it can be continued from."""

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.plugins.environments import SLURMEnvironment

from imgclf.training.distributed import Terminated, terminate

REQUEUE = getattr(signal, "SIGUSR1", None)  # Windows has no such signal


class Interruption(pl.Callback):
    """Ends a run after the current step on Ctrl-C, SIGTERM or SLURM's requeue signal (SIGUSR1), with a ``checkpoint``.

    A run that is stopped while it validates continues with that validation. A second Ctrl-C ends the run at once.
    Signals that something else handles already, such as submitit, are left alone.

    Several processes end at once, and continue from the last whole epoch: the signal may not have reached all of them,
    and a process that waits for one that has ended would hang.
    """

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint, self._received = checkpoint, 0
        self._signals: list[int] = []

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        requeue = [REQUEUE] if REQUEUE and SLURMEnvironment.detect() else []
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
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if self._received and stepped and not trainer.is_last_batch:  # validation follows the last one
            self._end(trainer, save=True)

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args, **kwargs) -> None:
        if self._received and trainer.state.fn == "fit":
            # Private API: a resumed run validates again only if the checkpoint's counters say that validation had
            # begun. Lightning sets them after this hook.
            progress = trainer.fit_loop.epoch_loop.val_loop.batch_progress
            progress.reset()
            progress.increment_ready()
            progress.increment_started()
            self._end(trainer, save=True)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._received:  # at the end of the epoch before, which is saved already
            self._end(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._received:
            self._end(trainer)

    def _end(self, trainer: pl.Trainer, save: bool = False) -> None:
        if save:
            trainer.save_checkpoint(self._checkpoint, weights_only=False)
        if self._received == REQUEUE and trainer.is_global_zero:
            job, array = os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_JOB_ID")
            if array:
                job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
            subprocess.run(["scontrol", "requeue", job], check=True)
        raise KeyboardInterrupt if self._received == signal.SIGINT else Terminated

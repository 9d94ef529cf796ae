"""Lightning's loop over the batches of an epoch, without what takes a small network longer than its own arithmetic."""

from operator import attrgetter
from typing import Any

import lightning
import lightning.pytorch as pl
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.profilers import PassThroughProfiler
from torch.optim import LBFGS

from imgclf.models.classifier import Classifier

# Private API: the loop over batches has no public hook to replace it. A Lightning without these names trains by its own
# loop (``use_fast_loop``).
try:
    from lightning.pytorch.loops.fetchers import _PrefetchDataFetcher
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
except ImportError:
    _PrefetchDataFetcher = _TrainingEpochLoop = object  # pyrefly: ignore[bad-assignment]

WRITTEN_FOR = "2.6."  # versions of Lightning whose order of calls EpochLoop repeats
# Private API: what EpochLoop uses of the trainer and of the loop that it replaces.
NEEDED_OF_TRAINER = ("fit_loop.epoch_loop", "_logger_connector.on_batch_end")
NEEDED_OF_LOOP = (
    *("automatic_optimization.optim_progress.optimizer.zero_grad", "batch_progress.is_last_batch"),
    *("_num_ready_batches_reached", "update_lr_schedulers", "batch_idx", "restarting"),
)
WITHIN_A_STEP = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")


def use_fast_loop(trainer: pl.Trainer) -> None:
    """Gives the trainer an EpochLoop, which saves about 1 ms a step, if it was written for the installed Lightning."""
    if not lightning.__version__.startswith(WRITTEN_FOR) or _TrainingEpochLoop is object:
        return
    try:
        attrgetter(*NEEDED_OF_TRAINER)(trainer)
        attrgetter(*NEEDED_OF_LOOP)(trainer.fit_loop.epoch_loop)
    except AttributeError:
        return
    trainer.fit_loop.epoch_loop = EpochLoop(trainer, trainer.min_steps, trainer.max_steps)


class EpochLoop(_TrainingEpochLoop):  # pyrefly: ignore[invalid-inheritance]
    """Calls what a plain recipe needs of a step, in Lightning's order and with its counters.

    Lightning asks about 60 times a step whether there is a profiler, a scaler, or something to accumulate, clip or
    call, which takes as long as a step of an MLP. This loop asks once an epoch, and leaves what is not plain, and the
    first batch of a resumed run, to Lightning's own ``advance``. The numbers are the same, bit for bit.
    """

    def on_run_start(self, data_fetcher: Any) -> None:
        super().on_run_start(data_fetcher)
        trainer: Any = self.trainer  # Lightning leaves some of its attributes undeclared
        callbacks, precision = trainer.callbacks, trainer.precision_plugin
        self._plain = (
            isinstance(data_fetcher, _PrefetchDataFetcher)
            and type(trainer.lightning_module) is Classifier  # a subclass may have hooks that are not called here
            and trainer.world_size == trainer.accumulate_grad_batches == 1
            and not trainer.gradient_clip_val
            and type(precision) in (Precision, MixedPrecision)
            and getattr(precision, "scaler", None) is None
            and isinstance(trainer.profiler, PassThroughProfiler)
            and not isinstance(trainer.optimizers[0], LBFGS)
            and not any(_overrides(callback, hook) for callback in callbacks for hook in WITHIN_A_STEP)
        )
        self._before = [callback for callback in callbacks if _overrides(callback, "on_train_batch_start")]
        self._after = [callback for callback in callbacks if _overrides(callback, "on_train_batch_end")]

    def advance(self, data_fetcher: Any) -> None:
        if not self._plain or self.restarting:
            super().advance(data_fetcher)
            return
        trainer: Any = self.trainer
        module, data, device = trainer.lightning_module, trainer.datamodule, trainer.strategy.root_device
        progress, optimized = self.batch_progress, self.automatic_optimization.optim_progress.optimizer
        batch, _, _ = next(data_fetcher)
        index = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = data.on_before_batch_transfer(batch, 0)
        if device.type != "cpu":
            batch = data.transfer_batch_to_device(batch, device, 0)
        batch = data.on_after_batch_transfer(batch, 0)
        progress.increment_ready()
        trainer._logger_connector.on_batch_start(batch)
        for callback in self._before:
            callback.on_train_batch_start(trainer, module, batch, index)
        module.on_train_batch_start(batch, index)
        progress.increment_started()

        optimized.step.increment_ready()
        with trainer.precision_plugin.forward_context():
            loss = module.training_step(batch, index)
        optimized.zero_grad.increment_ready()
        optimized.zero_grad.increment_started()
        trainer.optimizers[0].zero_grad()
        optimized.zero_grad.increment_completed()
        loss.backward()
        trainer.optimizers[0].step()
        optimized.step.increment_completed()

        progress.increment_processed()
        self.update_lr_schedulers("step", update_plateau_schedulers=False)
        if self._num_ready_batches_reached():
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        outputs = {"loss": loss.detach()}
        for callback in self._after:
            callback.on_train_batch_end(trainer, module, outputs, batch, index)
        module.on_train_batch_end(outputs, batch, index)
        trainer._logger_connector.on_batch_end()
        progress.increment_completed()
        trainer._logger_connector.update_train_step_metrics()


def _overrides(callback: pl.Callback, hook: str) -> bool:
    return getattr(type(callback), hook) is not getattr(pl.Callback, hook)

"""Callbacks of Lightning's, adapted to a run folder: progress bar, checkpoints, early stopping, averaged weights."""

import logging
import math
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor

from imgclf.checkpoints.files import METADATA_KEY
from imgclf.checkpoints.metadata import build_metadata
from imgclf.core.console import is_interactive, labelled
from imgclf.core.validation import Positive, Rate, checked
from imgclf.models.classifier import Classifier

OTHER_COLUMNS = 70  # characters of the bar's line beside the bar itself
log = logging.getLogger(__name__)
REFRESH_EVERY = 10  # steps; drawing the bar at every step would take as long as a small network's step


class CheckpointMetadata(pl.Callback):
    """Puts into every checkpoint what one needs to rebuild the classifier and its preprocessing."""

    def on_save_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: dict) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        checkpoint[METADATA_KEY] = {**build_metadata(pl_module, trainer.datamodule), "metrics": metrics}


class ProgressBar(RichProgressBar):
    """Lightning's rich progress bar on one line of 80 columns, with loss and accuracy of the last steps.

    It is drawn on a terminal and in a notebook. Files, which would keep every state of it, get a line an epoch only.

    Args:
        refresh_rate: how often it is drawn in a second.
        options: of Lightning's RichProgressBar.
    """

    def __init__(self, refresh_rate: int = 10, **options: Any) -> None:
        super().__init__(refresh_rate, **options)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if not is_interactive():
            self.disable()

    def configure_columns(self, trainer: pl.Trainer) -> list[ProgressColumn]:
        width = min(40, max(10, get_console().width - OTHER_COLUMNS))
        return [TextColumn("{task.description}"), BarColumn(width), MofNCompleteColumn(), TimeRemainingColumn()]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.progress:
            self.progress.live.transient = True  # the lines of the epochs stay

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        if (batch_idx + 1) % REFRESH_EVERY == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _get_train_description(self, current_epoch: int) -> str:
        # Private API: Lightning counts epochs from 0 and has no hook for the text. Without this method it would too.
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"

    def get_metrics(self, trainer: pl.Trainer, pl_module: Classifier) -> dict[str, float]:  # pyrefly: ignore[bad-override]
        validated = trainer.callback_metrics.get("val/accuracy")
        return pl_module.live if validated is None else {**pl_module.live, "val": float(validated)}


class ModelSummary(callbacks.ModelSummary):
    """Lightning's ModelSummary in one line, because a table of a deep network's layers fits no terminal."""

    @staticmethod
    def summarize(  # pyrefly: ignore[bad-override]
        summary_data: list[tuple[str, list[str]]], total_parameters: int, *others: Any, total_flops: int
    ) -> None:
        for line in labelled({"weights": f"{total_parameters:,}; {total_flops:,} operations an image"}):
            log.info(line)


class Checkpoints(ModelCheckpoint):
    """Lightning's ModelCheckpoint for a run folder, which may have been moved since the checkpoint was written.

    Of two epochs that are equally good, the one with the lower val/loss is kept, and of two with the same loss the
    later one. An epoch whose metric is undefined (NaN) is worse than any other. It refuses ``save_weights_only`` with a
    ValueError.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self.save_weights_only:
            raise ValueError("save_weights_only=True: leave it out, no run could be continued from such a checkpoint")
        self.best_loss = math.inf  # val/loss of the epoch that is kept

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        best, loss = self.best_model_score, float(trainer.callback_metrics.get("val/loss", math.inf))
        if current is None or self.save_top_k != 1:
            return super().check_monitor_top_k(trainer, current)
        score = -float(current) if self.mode == "min" else float(current)
        score = -math.inf if math.isnan(score) else score
        kept = -math.inf if best is None else -float(best) if self.mode == "min" else float(best)
        is_better = best is None or (score, -loss) >= (kept, -self.best_loss)
        is_better = trainer.strategy.reduce_boolean_decision(is_better)
        if is_better:
            self.best_loss = loss
        return is_better

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best_loss": self.best_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        def here(path: str) -> str:
            return str(Path(self.dirpath) / Path(path).name) if path and self.dirpath else path

        paths = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})
        self.best_loss = state_dict.get("best_loss", math.inf)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs, batch, batch_idx) -> None:
        # Private API: Lightning needs as long as it takes to draw a batch to find out that no checkpoint is due
        # within an epoch. Where these two attributes are gone, it is asked at every step.
        if getattr(self, "_every_n_train_steps", 1) or getattr(self, "_train_time_interval", None):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


class EarlyStopping(callbacks.EarlyStopping):
    """Lightning's EarlyStopping, which also remembers in a resumed run that it had stopped already.

    An epoch whose metric is undefined (NaN) is one without progress. The patience is that of the options, so that a run
    may be continued with more of it.
    """

    def __init__(self, monitor: str, check_finite: bool = False, **options: Any) -> None:
        super().__init__(monitor, check_finite=check_finite, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience


class EMA(EMAWeightAveraging):
    """Lightning's exponential moving average of the weights; the averaged weights are validated and saved.

    The threshold that validation chooses belongs to the averaged weights, and is not averaged itself.

    Args:
        decay: share of the old average that an update keeps, in [0, 1).
        update_every_n_steps: how many steps lie between two updates, from 1.
        options: of Lightning's WeightAveraging.
    """

    @checked
    def __init__(self, decay: Rate = 0.995, update_every_n_steps: Positive = 1, **options: Any) -> None:
        super().__init__(decay=decay, update_every_n_steps=update_every_n_steps, **options)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Private API: WeightAveraging gives no other access to the averaged model, which is None outside of fit.
        if self._average_model is not None:
            self._average_model.module.get_buffer("threshold").copy_(pl_module.get_buffer("threshold"))

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        if trainer.validating:  # the averaged weights and the current ones have changed places
            averaged, current = checkpoint["current_model_state"], checkpoint["state_dict"]
            checkpoint.update(state_dict=averaged, current_model_state=current)

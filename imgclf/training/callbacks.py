"""What happens around training: the progress bar, checkpoints, the record of every epoch, pictures of it."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar

from imgclf.checkpoints.files import METADATA_KEY
from imgclf.checkpoints.metadata import build_metadata
from imgclf.models.classifier import Classifier

log = logging.getLogger(__name__)

REFRESH_EVERY = 10  # steps; drawing at every step would take a small network's time


class CheckpointMetadata(pl.Callback):
    """Puts into every checkpoint what one needs to rebuild the classifier and its preprocessing."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._metadata(trainer, pl_module)  # what cannot be described fails now, not at the first checkpoint

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict) -> None:
        checkpoint[METADATA_KEY] = self._metadata(trainer, pl_module)

    def _metadata(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return build_metadata(pl_module, trainer.datamodule)  # pyrefly: ignore[missing-attribute]


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

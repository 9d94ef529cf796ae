"""What happens around training: the progress bar, checkpoints, the record of every epoch, pictures of it."""

import inspect
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore[missing-module-attribute]

from imgclf.figures.classification import plot_confusion_matrix
from imgclf.figures.learning_curves import plot_learning_curves
from imgclf.figures.style import encode_png, render
from imgclf.models.classifier import Classifier
from imgclf.runs.run_dir import RunDir
from imgclf.training.history import History
from imgclf.transforms.augmentation import Augmentation


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
        if (
            epoch % self.every_n_epochs
            or not boards
            or not trainer.is_global_zero
            or validated.confusion_matrix is None
        ):
            return
        rows = next(callback for callback in trainer.callbacks if isinstance(callback, History)).rows  # pyrefly: ignore[missing-attribute]
        counts, names = validated.confusion_matrix.cpu(), pl_module.class_names
        matrix = plot_confusion_matrix(counts, names, f"validation, epoch {epoch}")
        drawn = {"val/confusion_matrix": matrix, "curves": plot_learning_curves(rows)}
        for board in boards:
            for name, figure in drawn.items():
                board.add_image(name, render(figure), step, dataformats="HWC")
            if validated.last_scores_and_labels:
                scores, labels = validated.last_scores_and_labels
                board.add_pr_curve("val/precision_recall", labels, scores, step)
            for name, weight in pl_module.network.named_parameters() if self.weights else ():
                board.add_histogram(f"weights/{name}", weight, step)


NO_HYPERPARAMETERS = (
    *("_partial_", "data_dir", "eval_batch_size", "num_workers", "accelerator", "devices", "num_nodes", "strategy"),
    *("log_every_n_steps", "profiler", "enable_progress_bar", "enable_model_summary"),
)


def _go_on_from(trainer: pl.Trainer, step: int) -> None:
    """Tells TensorBoard to forget what earlier sessions logged from ``step`` on, which comes again."""
    for logger in tensorboard_loggers(trainer):
        session = SessionLog(status=SessionLog.START)
        logger.experiment.file_writer.add_event(Event(step=step, session_log=session))


def publish_figure(folder: RunDir, trainer: pl.Trainer, name: str, figure: Any) -> None:
    """To figures/NAME.png and TensorBoard's images."""
    pixels = render(figure)
    folder.write(f"figures/{name}.png", encode_png(pixels))
    for logger in tensorboard_loggers(trainer):
        logger.experiment.add_image(name, pixels, trainer.global_step, dataformats="HWC")


def tensorboard_loggers(trainer: pl.Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def loggable_hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """The options that say what was trained: not where and how it was logged, nor what is off, so that few are left."""
    off = {name: argument.default for name, argument in inspect.signature(Augmentation).parameters.items()}

    def shown(options: Any) -> Any:
        if not isinstance(options, dict):
            return options
        values = {
            name: shown(value)
            for name, value in options.items()
            if name not in NO_HYPERPARAMETERS and value is not None and (name not in off or value != off[name])
        }
        target = values.pop("_target_", None)
        return {"class": target.rpartition(".")[2], **values} if target else values

    groups = ("seed", "data", "model", "loss", "classifier", "optimizer", "scheduler", "augmentation", "trainer")
    return {name: shown(config[name]) for name in groups}

"""What TensorBoard shows besides scalars: figures, curves, hyper-parameters with the results."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from imgclf.core.validation import Positive, checked
from imgclf.evaluation.evaluate import Evaluation
from imgclf.figures.classification import plot_confusion_matrix
from imgclf.figures.learning_curves import plot_learning_curves
from imgclf.figures.style import encode_png, render
from imgclf.models.classifier import Classifier
from imgclf.runs.run_dir import RunDir
from imgclf.training.history import History

HYPERPARAMETER_GROUPS = (
    *("seed", "data", "model", "classifier", "loss"),
    *("optimizer", "scheduler", "augmentation", "trainer"),
)
# Options that say where and how a run was made, not what was trained.
NO_HYPERPARAMETERS = (
    *("_partial_", "data_dir", "cache_dir", "eval_batch_size", "num_workers"),
    *("accelerator", "devices", "num_nodes", "strategy"),
    *("log_every_n_steps", "profiler", "enable_progress_bar", "enable_model_summary"),
)


class Dashboard(pl.Callback):
    """Shows pictures in TensorBoard while a run goes on.

    They are the learning curves, the confusion matrix of the validation images and, of two classes, their
    precision-recall curve.

    Args:
        every_n_epochs: how many epochs lie between two pictures, from 1.
        weights: whether to add histograms of the weights.

    Raises:
        ValueError: an argument out of range.
    """

    @checked
    def __init__(self, every_n_epochs: Positive = 5, weights: bool = False) -> None:
        self.every_n_epochs, self.weights = every_n_epochs, weights

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Classifier) -> None:  # pyrefly: ignore[bad-override]
        epoch, validated = trainer.current_epoch + 1, pl_module.validated
        if epoch % self.every_n_epochs or validated.confusion_matrix is None or not trainer.is_global_zero:
            return
        boards = [logger.experiment for logger in tensorboard_loggers(trainer)]
        if not boards:
            return
        step = trainer.global_step - 1  # that of the epoch's last batch: a checkpoint's own step comes after it
        title = f"validation, epoch {epoch}"
        figures = {
            "val/confusion_matrix": plot_confusion_matrix(
                validated.confusion_matrix.cpu(), pl_module.class_names, title
            ),
            "curves": plot_learning_curves(History.of(trainer).rows),
        }
        for board in boards:
            for name, figure in figures.items():
                board.add_image(name, render(figure), step, dataformats="HWC")
            if validated.last_scores_and_labels:
                scores, labels = validated.last_scores_and_labels
                board.add_pr_curve("val/precision_recall", labels, scores, step)
            if self.weights:
                for name, weight in pl_module.network.named_parameters():
                    board.add_histogram(f"weights/{name}", weight, step)


def tensorboard_loggers(trainer: pl.Trainer) -> list[TensorBoardLogger]:
    """The TensorBoard loggers among the trainer's."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def purge_from(trainer: pl.Trainer, step: int) -> None:
    """Has TensorBoard forget what earlier sessions logged from ``step`` on, which a resumed run logs again.

    It has no effect on a logger that has logged something already.
    """
    for logger in tensorboard_loggers(trainer):
        # Private API: the step is known only after the logger was made, which passes these on to SummaryWriter.
        logger._kwargs["purge_step"] = step


def publish_figure(run_dir: RunDir, trainer: pl.Trainer, name: str, figure: Figure) -> None:
    """Writes a figure to figures/NAME.png and to TensorBoard's images."""
    pixels = render(figure)
    run_dir.write(f"figures/{name}.png", encode_png(pixels))
    for logger in tensorboard_loggers(trainer):
        logger.experiment.add_image(name, pixels, trainer.global_step, dataformats="HWC")


def publish_results(
    trainer: pl.Trainer, evaluations: Mapping[str, Evaluation], metrics: Mapping[str, Any], config: Mapping[str, Any]
) -> None:
    """Writes the results of best.ckpt to TensorBoard: precision-recall curves, and hyper-parameters with metrics."""
    for logger in tensorboard_loggers(trainer):
        for split, evaluation in evaluations.items():
            if evaluation.probabilities.shape[1] == 2:
                labels, scores = evaluation.labels, evaluation.probabilities[:, 1]
                logger.experiment.add_pr_curve(f"{split}/precision_recall", labels, scores, trainer.global_step)
        results = {f"result/{name}": value for name, value in metrics.items() if value is not None}
        logger.log_hyperparams(loggable_hyperparameters(config), results, trainer.global_step)
        logger.finalize("success")


def loggable_hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say what was trained; options that are null and augmentations that are off are left out."""
    shown = {name: _shown(config[name]) for name in HYPERPARAMETER_GROUPS if name in config}
    return {**shown, "augmentation": _strengths(shown["augmentation"])}


def _shown(options: Any) -> Any:
    if not isinstance(options, dict):
        return options
    values = {
        name: _shown(value) for name, value in options.items() if name not in NO_HYPERPARAMETERS and value is not None
    }
    target = values.pop("_target_", None)
    return {"class": target.rpartition(".")[2], **values} if target else values


def _strengths(options: Any) -> Any:
    """The augmentations that are on. An amount of 0 is off, and so is a crop of the whole image."""
    if not isinstance(options, dict):
        return options
    values = {name: _strengths(value) for name, value in options.items() if name != "class"}
    whole = {name for name in ("crop", "min_area") if values.get(name) == 1}
    return {name: value for name, value in values.items() if value and name not in whole}

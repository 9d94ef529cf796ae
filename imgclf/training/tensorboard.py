"""What TensorBoard shows besides scalars: figures, curves, hyper-parameters with the results."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure

from imgclf.core.names import METRICS
from imgclf.core.validation import Positive, checked
from imgclf.evaluation.evaluate import Evaluation
from imgclf.figures.classification import plot_confusion_matrix
from imgclf.figures.learning_curves import plot_learning_curves
from imgclf.figures.style import encode_png, render
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from imgclf.runs.run_dir import RunDir
from imgclf.training.history import History

HYPERPARAMETER_GROUPS = ("seed", "data", "model", "classifier", "loss", "optimizer", "scheduler", "trainer")
# Options that say where and how a run was made, not what was trained.
NO_HYPERPARAMETERS = (
    *("_partial_", "data_dir", "cache_dir", "eval_batch_size", "num_workers"),
    *("accelerator", "devices", "num_nodes", "strategy"),
    *("log_every_n_steps", "profiler", "enable_progress_bar", "enable_model_summary"),
)
MOST_POINTS, MOST_PIXELS = 1000, 2**24  # of the projector: images, and their pixels of all channels
SPRITE_SIDE, FEATURES = 28, 64  # larger images and longer features are reduced


class Dashboard(pl.Callback):
    """Shows in TensorBoard, while a run goes on, the learning curves and how the validation images are classified.

    The tab "custom scalars" has training and validation in one chart for every metric.

    Args:
        every_n_epochs: how many epochs lie between two pictures, from 1.
        weights: whether to add histograms of the weights.
    """

    @checked
    def __init__(self, every_n_epochs: Positive = 5, weights: bool = False) -> None:
        self.every_n_epochs, self.weights = every_n_epochs, weights

    def on_train_start(self, trainer: pl.Trainer, pl_module: Classifier) -> None:  # pyrefly: ignore[bad-override]
        if trainer.is_global_zero:
            charts = {name: ["Multiline", [f"^train/{name}$", f"^val/{name}$"]] for name in METRICS}
            for logger in _loggers(trainer):
                logger.experiment.add_custom_scalars({"train and validation": charts})

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Classifier) -> None:  # pyrefly: ignore[bad-override]
        epoch, validated = trainer.current_epoch + 1, pl_module.validated
        if epoch % self.every_n_epochs or validated.confusion_matrix is None or not trainer.is_global_zero:
            return
        step = trainer.global_step - 1  # the epoch's last batch; the checkpoint belongs to the step after it
        counts, title = validated.confusion_matrix.cpu(), f"validation, epoch {epoch}"
        for board in (logger.experiment for logger in _loggers(trainer)):
            confusion = plot_confusion_matrix(counts, pl_module.class_names, title)
            board.add_image("val/confusion_matrix", render(confusion), step, dataformats="HWC")
            curves = plot_learning_curves(History.of(trainer).rows)
            board.add_image("curves", render(curves), step, dataformats="HWC")
            if validated.last_scores_and_labels:
                scores, labels = validated.last_scores_and_labels
                board.add_pr_curve("val/precision_recall", labels, scores, step)
            if self.weights:
                for name, weight in pl_module.network.named_parameters():
                    board.add_histogram(f"weights/{name}", weight, step)


def _loggers(trainer: pl.Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]


def purge_from(trainer: pl.Trainer, step: int) -> None:
    """Has TensorBoard forget what earlier sessions logged from ``step`` on, if this session has logged nothing yet."""
    for logger in _loggers(trainer):
        # Private API: the step is known only after the logger was made, which passes these on to SummaryWriter.
        logger._kwargs["purge_step"] = step


def publish_figure(run_dir: RunDir, trainer: pl.Trainer, name: str, figure: Figure) -> None:
    """Writes a figure to figures/NAME.png and to TensorBoard's images."""
    pixels = render(figure)
    run_dir.write(f"figures/{name}.png", encode_png(pixels))
    for logger in _loggers(trainer):
        logger.experiment.add_image(name, pixels, trainer.global_step, dataformats="HWC")


def publish_results(
    trainer: pl.Trainer,
    predictor: Predictor,
    evaluations: Mapping[str, Evaluation],
    metrics: Mapping[str, Any],
    config: Mapping[str, Any],
) -> None:
    """Writes the results of best.ckpt to TensorBoard.

    These are precision-recall curves, hyper-parameters with metrics, and the projector's map of the last split.
    """
    for logger in _loggers(trainer):
        _add_projection(logger, predictor, list(evaluations.values())[-1], trainer.global_step)
        for split, evaluation in evaluations.items():
            if evaluation.probabilities.shape[1] == 2:
                labels, scores = evaluation.labels, evaluation.probabilities[:, 1]
                logger.experiment.add_pr_curve(f"{split}/precision_recall", labels, scores, trainer.global_step)
        results = {f"result/{name}": value for name, value in metrics.items() if value is not None}
        shown = {name: _shown(config[name]) for name in HYPERPARAMETER_GROUPS}
        shown["augmentation"] = _strengths(config["augmentation"])
        logger.log_hyperparams(shown, results, trainer.global_step)
        logger.finalize("success")


def _add_projection(logger: TensorBoardLogger, predictor: Predictor, evaluation: Evaluation, step: int) -> None:
    """Gives the projector the features of the first images, with each image as a sprite and its true class."""
    channels, height, width = predictor.image_shape
    count = max(1, min(MOST_POINTS, MOST_PIXELS // (channels * height * width)))
    images, labels = evaluation.images[:count]
    features = predictor.features(images)
    if features.shape[1] > FEATURES:  # the projector reads text, and reduces them further
        features = features @ torch.pca_lowrank(features, min(FEATURES, len(features)))[2]
    scale = SPRITE_SIDE / max(height, width)
    size = [max(1, round(side * scale)) for side in (height, width)]
    sprites = F.interpolate(images.float().div_(255), size, mode="area")
    if channels != 3:
        sprites = sprites.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    classes = [predictor.class_names[label] for label in labels]
    logger.experiment.add_embedding(features, classes, sprites, step, tag=evaluation.split)


def _shown(options: Any) -> Any:
    """The options that say what was trained, without those that are null; a class by its own name."""
    if not isinstance(options, dict):
        return options
    known = {name: _shown(value) for name, value in options.items() if value is not None}
    values = {name: value for name, value in known.items() if name not in (*NO_HYPERPARAMETERS, "_target_")}
    return {"class": known["_target_"].rpartition(".")[2], **values} if "_target_" in known else values


def _strengths(options: Any) -> Any:
    """The augmentations that are on. An amount of 0 is off, and so is a crop of the whole image."""
    if not isinstance(options, dict):
        return options
    values = {name: _strengths(value) for name, value in options.items() if (name, value) != ("min_area", 1)}
    return {name: value for name, value in values.items() if value and name not in ("_target_", "_convert_")}

"""Ends a run: evaluates its best checkpoint, and leaves metrics and figures in the run folder."""

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl

from imgclf.core.names import SPLITS
from imgclf.data.datamodule import ImageDataModule
from imgclf.evaluation.calibration import calibrate_best
from imgclf.evaluation.evaluate import evaluate
from imgclf.evaluation.html_report import write_report
from imgclf.evaluation.intervals import bootstrap_intervals
from imgclf.evaluation.report import result_figures, write_tables
from imgclf.figures.dataset import plot_dataset
from imgclf.figures.learning_curves import plot_learning_curves
from imgclf.inference.load import load
from imgclf.runs.run_dir import RunDir
from imgclf.training.fit import resumable
from imgclf.training.history import History
from imgclf.training.tensorboard import publish_figure, publish_results


def evaluate_best(
    run_dir: RunDir,
    data: ImageDataModule,
    trainer: pl.Trainer,
    config: Mapping[str, Any],
    splits: Sequence[str] = SPLITS,
) -> dict[str, float] | None:
    """Evaluates best.ckpt, as evaluate.py does, and writes metrics.json, tables, figures and TensorBoard's results.

    The first four arguments are those of ``fit``. "val" is always among the splits, because the objective is one of its
    metrics; splits that the data lack are left out.

    Returns:
        The content of metrics.json; None on all processes but the first: the others do nothing here.
    """
    if not trainer.is_global_zero:
        return None
    with resumable(run_dir):
        if config["classifier"]["temperature"] == "validation":
            moves_threshold = config["classifier"]["threshold"] == "validation"
            calibrate_best(run_dir.best, data, trainer.strategy.root_device, moves_threshold)
        predictor = load(run_dir.best, trainer.strategy.root_device)
        evaluations = {split: evaluate(predictor, data, split) for split in data.splits if split in {"val", *splits}}
        history, names = History.of(trainer), predictor.class_names
        metrics: dict[str, Any] = {}
        for evaluation in evaluations.values():
            metrics |= evaluation.metrics
        metrics |= {
            "train/seconds": history.seconds,
            "train/images_per_second": max(row["images_per_second"] for row in history.rows),
            "best_epoch": predictor.epoch,
            "epochs": len(history.rows),
        }
        images = {split: evaluation.images for split, evaluation in evaluations.items()}
        figures = {
            "curves": plot_learning_curves(history.rows),
            "data": plot_dataset(images, names),
            **result_figures(list(evaluations.values())[-1], names),
        }
        for name, figure in figures.items():
            publish_figure(run_dir, trainer, name, figure)
        write_tables(run_dir, list(evaluations.values()), predictor)
        run_dir.write_json("intervals.json", bootstrap_intervals(list(evaluations.values())[-1]))
        publish_results(trainer, predictor, evaluations, metrics, config)
        write_report(run_dir, metrics, predictor, list(evaluations.values()), data)
        run_dir.write_json("metrics.json", metrics)  # last: the run is finished once it is there
    return metrics

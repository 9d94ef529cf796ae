"""From objects to a finished run folder: fit, evaluate the best checkpoint, leave figures and metrics behind."""

import contextlib
import logging
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from rich import get_console
from rich.markup import escape
from rich.table import Table

from imgclf.checkpoints.files import METADATA_KEY, read_checkpoint
from imgclf.checkpoints.metadata import build_metadata, changed_splits
from imgclf.core import rng
from imgclf.core.names import BINARY_METRICS, BINARY_OBJECTIVES, METRICS, SPLITS
from imgclf.core.text import shell_value
from imgclf.data.datamodule import ImageDataModule
from imgclf.evaluation.evaluate import evaluate
from imgclf.evaluation.report import result_figures
from imgclf.figures.dataset import plot_dataset, plot_samples
from imgclf.figures.learning_curves import plot_learning_curves
from imgclf.inference.load import load
from imgclf.models.classifier import Classifier
from imgclf.runs.run_dir import RunDir
from imgclf.training.distributed import close_process_group, signals_kept
from imgclf.training.history import History
from imgclf.training.loop import EpochLoop
from imgclf.training.tensorboard import _go_on_from, loggable_hyperparameters, publish_figure, tensorboard_loggers

log = logging.getLogger(__name__)


def supplied(options: Mapping[str, Any], folder: RunDir, mode: str) -> dict[str, Any]:
    """What a callback's configuration leaves to the run: where checkpoints go, and which way is better."""
    known = {"dirpath": str(folder.best.parent), "mode": mode}
    return {name: value for name, value in known.items() if name in options and options[name] is None}


def unfused(config: Mapping[str, Any]) -> dict[str, Any]:
    """Lightning refuses to clip the gradients of fused optimizers under mixed precision: their option when clipping."""
    clips = config["trainer"]["gradient_clip_val"] and "fused" in config["optimizer"]
    return {"fused": False} if clips else {}


def layout(config: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's devices, num_nodes and strategy: DDP for several processes, told if frozen weights take no part."""
    trainer = config["trainer"]
    devices, nodes, strategy = trainer["devices"], trainer["num_nodes"], trainer["strategy"]
    if devices * nodes == 1:
        strategy = "auto"
    elif strategy in ("auto", "ddp"):
        strategy = "ddp_find_unused_parameters_true" if config["model"].get("freeze_epochs") else "ddp"
    return {"devices": devices, "num_nodes": nodes, "strategy": strategy}


def train(
    folder: RunDir,
    data: ImageDataModule,
    classifier: Classifier,
    trainer: pl.Trainer,
    config: dict[str, Any],
    evaluate_on: Sequence[str] = SPLITS,
) -> dict[str, float] | None:
    """Fits, continuing from the folder's last checkpoint if there is one, and fills the run folder.

    Of several processes all fit, and the first alone does the rest: it evaluates whole splits, once.

    Args:
        folder: entered already, by the first process.
        data: set up for fit.
        classifier: untrained.
        trainer: with a History among its callbacks and checkpoints named as in the run folder.
        config: what the run was composed from, plain types, for config.yaml and TensorBoard's hyper-parameters.
        evaluate_on: splits that best.ckpt is evaluated on; val always is, the objective being one of its metrics.

    Returns:
        metrics.json; None of the other processes.
    """
    if config["objective"] in BINARY_OBJECTIVES and len(data.class_names) != 2:
        raise ValueError(f"objective={config['objective']} needs data of two classes, not {len(data.class_names)}")
    threshold = config["classifier"]["threshold"]
    if threshold != 0.5 and len(data.class_names) != 2:
        raise ValueError(f"threshold={threshold} is for two classes, not {len(data.class_names)}: leave it out")
    history = next(callback for callback in trainer.callbacks if isinstance(callback, History))  # pyrefly: ignore[missing-attribute]
    resumed = None
    with _resumable(folder):
        try:
            if trainer.is_global_zero:
                resumed, step = _resume_point(folder, classifier, data)
                folder.metrics_file.unlink(missing_ok=True)  # of a shorter run that is being continued
                folder.write_config(config, str(trainer.strategy.root_device), resumed is not None)
                _go_on_from(trainer, step)
                if not resumed:
                    _sample_figure(folder, data, trainer)
            resumed = trainer.strategy.broadcast(resumed)
            log.info("%s %s", "continuing" if resumed else "run folder", folder.path)
            warnings.filterwarnings("ignore", ".*sync_dist=True.*")  # the metrics are of all processes already
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")  # Batches knows where to begin
            trainer.fit_loop.epoch_loop = EpochLoop(trainer, trainer.min_steps, trainer.max_steps)
            with signals_kept():
                trainer.fit(classifier, datamodule=data, ckpt_path=resumed, weights_only=True)
        except Exception:
            if trainer.is_global_zero and not trainer.global_step:
                folder.clear()  # refused before the first step
            raise
        close_process_group()  # what follows is the first process's own work: nothing in it may wait for others
        return _finish(folder, data, trainer, config, evaluate_on, history) if trainer.is_global_zero else None


def _finish(
    folder: RunDir,
    data: ImageDataModule,
    trainer: pl.Trainer,
    config: dict[str, Any],
    evaluate_on: Sequence[str],
    history: History,
) -> dict[str, float]:
    best = read_checkpoint(folder.best)
    predictor = load(folder.best, trainer.strategy.root_device)
    evaluations = {split: evaluate(predictor, data, split) for split in SPLITS if split in {"val", *evaluate_on}}
    metrics = {name: value for evaluation in evaluations.values() for name, value in evaluation.metrics.items()}
    metrics |= {
        "train/seconds": history.seconds,
        "train/images_per_second": max(row["images_per_second"] for row in history.rows),
        "best_epoch": best["epoch"] + 1,
        "epochs": len(history.rows),
    }

    names = predictor.class_names
    publish_figure(folder, trainer, "curves", plot_learning_curves(history.rows))
    publish_figure(folder, trainer, "data", plot_dataset({split: e.images for split, e in evaluations.items()}, names))
    for name, figure in result_figures(list(evaluations.values())[-1], names).items():
        publish_figure(folder, trainer, name, figure)
    for logger in tensorboard_loggers(trainer):
        for split, evaluation in evaluations.items() if len(names) == 2 else ():
            scores = evaluation.probabilities[:, 1]
            logger.experiment.add_pr_curve(f"{split}/precision_recall", evaluation.labels, scores, trainer.global_step)
        results = {f"result/{name}": value for name, value in metrics.items()}
        logger.log_hyperparams(loggable_hyperparameters(config), results, trainer.global_step)
        logger.finalize("success")
    folder.write_json("metrics.json", metrics)
    return metrics


def report(folder: RunDir, metrics: dict[str, float], overrides: Sequence[str]) -> None:
    """Prints the metrics table and the commands that go on from here; ``overrides`` are the run's own options."""
    splits = [split for split in SPLITS if f"{split}/loss" in metrics]
    table = Table(title=f"best.ckpt (epoch {metrics['best_epoch']} of {metrics['epochs']})")
    table.add_column("metric")
    for split in splits:
        table.add_column(split, justify="right")
    for name in METRICS + (BINARY_METRICS if "val/auroc" in metrics else ()):
        table.add_row(name, *(f"{metrics[f'{split}/{name}']:.4f}" for split in splits))
    console = get_console()
    console.print(table)
    seconds, speed = metrics["train/seconds"], metrics["train/images_per_second"]
    console.print(f"training took {seconds:.1f} s, {speed:,.0f} images per second at best\n", highlight=False)
    path, best = shell_value(folder.path), shell_value(folder.best)
    options = shlex.join(word for word in overrides if not word.startswith("resume="))
    for purpose, command in {
        "evaluate": f"python evaluate.py ckpt={best}",
        "predict": f"python evaluate.py ckpt={best} images=PATH",
        "resume": " ".join(filter(None, ["python train.py", options, f"hydra.run.dir={path} resume=true"])),
        "dashboard": f"tensorboard --logdir {path}",
    }.items():
        console.print(f"{purpose:>9}:  {escape(command)}", highlight=False, soft_wrap=True)


@contextlib.contextmanager
def _resumable(folder: RunDir) -> Iterator[None]:
    """Around what a run can be resumed after: what ends it says so, in one line."""
    hint = f"hydra.run.dir={shell_value(folder.path)} resume=true continues it"
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as stop:  # Lightning makes the one of the other
        kind = type(stop.__context__ if isinstance(stop, SystemExit) else stop)
        raise (kind if issubclass(kind, KeyboardInterrupt) else KeyboardInterrupt)(hint) from stop
    except (OSError, ValueError) as error:
        # TensorBoard's writes fail in a thread, and are raised where the run logs next: as something else by Lightning.
        fault = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(fault, OSError):
            raise
        where = "" if str(folder.path) in str(fault) else f"{folder.path}: "
        kept = f"; what is saved is kept, and {hint}" if folder.last.exists() else ""
        raise OSError(f"{where}{fault}{kept}") from error


def _resume_point(folder: RunDir, classifier: Classifier, data: ImageDataModule) -> tuple[Path | None, int]:
    """The checkpoint to go on from and its step: last.ckpt, or best.ckpt where that is damaged or gone; None, 0 if
    there is none yet.

    Raises:
        ValueError: there is none left of a run that had some, or it is one of another run.
    """
    faults = []
    for file in (folder.last, folder.best):
        try:
            checkpoint = read_checkpoint(file)
        except (OSError, ValueError) as error:
            faults.append(str(error))
            continue
        if faults:
            log.warning("%s: going on from %s, epoch %d", faults[0], file, checkpoint["epoch"] + 1)
        saved, now = checkpoint[METADATA_KEY], build_metadata(classifier, data)
        changed = [
            f"{name} was {saved.get(name)}, is {now[name]}"
            for name in ("class_names", "network", "optimizer")
            if saved.get(name, now[name]) != now[name]
        ]
        if changed:
            raise ValueError(f"{file} cannot be resumed with something else ({'; '.join(changed)}): use a new folder")
        if splits := changed_splits(saved, data):
            raise ValueError(
                f"{file} cannot be resumed: the {', '.join(splits)} images are others than it was trained with; bring "
                "them back, or use a new folder"
            )
        return file, checkpoint["global_step"]
    if any(file.exists() for file in (folder.last, folder.best, folder.metrics_file, folder.path / "metrics.csv")):
        raise ValueError(f"{folder.path} cannot be resumed: {'; '.join(faults)}; to train anew, use a new folder")
    return None, 0


def _sample_figure(folder: RunDir, data: ImageDataModule, trainer: pl.Trainer) -> None:
    batch, labels = data.train_dataset().examples()
    seen = data.augment(batch.float().div_(255), rng.generator("samples"))
    title = "Training images as the network sees them"
    publish_figure(folder, trainer, "samples", plot_samples(seen, labels, data.class_names, title))

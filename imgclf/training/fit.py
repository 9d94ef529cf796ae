"""Trains: from the data, the classifier and the trainer to the checkpoints of a run folder."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from imgclf.checkpoints.metadata import build_metadata
from imgclf.core import rng
from imgclf.core.names import BINARY_OBJECTIVES
from imgclf.data.datamodule import ImageDataModule
from imgclf.evaluation.calibration import check_labels
from imgclf.figures.dataset import plot_samples
from imgclf.models.classifier import Classifier
from imgclf.runs.resume import find_checkpoint, resume_hint
from imgclf.runs.run_dir import RunDir
from imgclf.training.distributed import Terminated, close_process_group, signals_kept
from imgclf.training.loop import use_fast_loop
from imgclf.training.messages import announce
from imgclf.training.tensorboard import publish_figure, purge_from


def fit(
    run_dir: RunDir, data: ImageDataModule, classifier: Classifier, trainer: pl.Trainer, config: Mapping[str, Any]
) -> None:
    """Trains the classifier, from the run folder's last checkpoint if it has one.

    It writes config.yaml, environment.json, figures/samples.png, metrics.csv and the checkpoints. Of several processes
    all train and the first one writes. Afterwards each is on its own.

    Args:
        run_dir: entered already, by the first process.
        data: set up for fit.
        classifier: untrained.
        trainer: made by ``build_trainer``.
        config: the run's configuration, plain types.

    Raises:
        ValueError: the options do not fit the data or the checkpoint in the folder belongs to another run; a
            temperature cannot be chosen on these validation images.
        OSError, KeyboardInterrupt: as ``resumable`` says.
    """
    classes, threshold = len(data.class_names), config["classifier"]["threshold"]
    if classes != 2 and config["objective"] in BINARY_OBJECTIVES:
        raise ValueError(f"objective={config['objective']} needs data of two classes, not {classes}")
    if classes != 2 and threshold != 0.5:
        raise ValueError(f"threshold={threshold} is for two classes, not {classes}: leave it out")
    if classifier.chooses_temperature:
        check_labels(data.dataset("val").targets)
    with resumable(run_dir):
        try:
            checkpoint = _prepare(run_dir, data, classifier, trainer, config) if trainer.is_global_zero else None
            checkpoint = trainer.strategy.broadcast(checkpoint)
            # EpochMetrics gathers from all processes itself, and the sampler knows where to begin.
            warnings.filterwarnings("ignore", ".*(sync_dist=True|your dataloader is not resumable).*")
            use_fast_loop(trainer)
            with signals_kept():
                trainer.fit(classifier, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except Exception:
            if trainer.is_global_zero and not trainer.global_step:
                run_dir.clear()  # refused before the first step
            raise
    close_process_group()  # the first process works on alone, and must not wait for the others


def _prepare(
    run_dir: RunDir, data: ImageDataModule, classifier: Classifier, trainer: pl.Trainer, config: Mapping[str, Any]
) -> Path | None:
    """Describes the run in its folder; returns the checkpoint to go on from, or None for a new run."""
    checkpoint, step = find_checkpoint(run_dir, build_metadata(classifier, data), data, config["trainer"]["max_epochs"])
    run_dir.metrics_file.unlink(missing_ok=True)  # a shorter run left it, which is being continued
    run_dir.write_config(config, str(trainer.strategy.root_device), resumed=checkpoint is not None)
    purge_from(trainer, step)
    announce(run_dir, data, trainer, config, continued=checkpoint is not None)
    if not checkpoint:
        images, labels = data.train_dataset().examples()
        inputs = data.augment(images.float().div_(255), rng.generator("samples"))
        figure = plot_samples(inputs, labels, data.class_names, "Training images as the network sees them")
        publish_figure(run_dir, trainer, "samples", figure)
    return checkpoint


@contextlib.contextmanager
def resumable(run_dir: RunDir) -> Iterator[None]:
    """Within this context, a KeyboardInterrupt or OSError that ends the run says how it is continued, in one line."""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as stop:  # Lightning turns a KeyboardInterrupt into a SystemExit
        terminated = Terminated in (type(stop), type(stop.__context__))
        raise (Terminated if terminated else KeyboardInterrupt)(resume_hint(run_dir.path)) from stop
    except (OSError, ValueError) as error:
        # TensorBoard writes in a thread. Its OSError is raised where the run logs next, and Lightning wraps it there.
        fault = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(fault, OSError):
            raise
        where = "" if str(run_dir.path) in str(fault) else f"{run_dir.path}: "
        kept = f"; what is saved is kept, and {resume_hint(run_dir.path)}" if run_dir.last.exists() else ""
        raise OSError(f"{where}{fault}{kept}") from error

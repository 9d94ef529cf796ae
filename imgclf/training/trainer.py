"""Lightning's Trainer for a run: its callbacks, loggers, precision and processes."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate

from imgclf.checkpoints.files import AtomicCheckpointIO
from imgclf.core.device import choose_precision
from imgclf.core.names import better
from imgclf.models.network import Network
from imgclf.runs.run_dir import RunDir
from imgclf.training.callbacks import CheckpointMetadata
from imgclf.training.history import History
from imgclf.training.interruption import Interruption


def build_trainer(config: Mapping[str, Any], run_dir: RunDir, device: torch.device, network: Network) -> pl.Trainer:
    """Lightning's Trainer with the callbacks and loggers of a run's configuration, in plain types.

    History, CheckpointMetadata and Interruption join the callbacks. A job of a sweep prints no summary of its model.
    Several processes train by DDP. The precision "auto" depends on the device and the network.
    """

    def write_metrics(rows: list[dict[str, Any]]) -> None:
        run_dir.write_csv("metrics.csv", list(dict.fromkeys(chain(*rows))), rows)

    def build_callback(options: Mapping[str, Any]) -> pl.Callback:
        run: dict[str, Any] = {"dirpath": str(run_dir.best.parent), "mode": better(config["objective"])}
        return instantiate(options, **{name: run[name] for name in run if options.get(name, "") is None})

    trainer = {name: value for name, value in config["trainer"].items() if name != "threads"}
    callbacks = [
        build_callback(options)
        for name, options in config["callbacks"].items()
        if options and trainer.get(f"enable_{name}", True) and not (run_dir.in_sweep and name == "model_summary")
    ]
    strategy = trainer["strategy"]
    if trainer["devices"] * trainer["num_nodes"] == 1:
        strategy = "auto"
    elif strategy in ("auto", "ddp"):  # DDP has to be told if frozen weights get no gradient
        strategy = "ddp_find_unused_parameters_true" if config["model"].get("freeze_epochs") else "ddp"
    return instantiate(
        trainer,
        strategy=strategy,
        precision=choose_precision(trainer["precision"], device, network),
        # else Lightning adds a table of its own
        enable_model_summary=any(isinstance(callback, pl.callbacks.ModelSummary) for callback in callbacks),
        callbacks=[History(write_metrics), CheckpointMetadata(), *callbacks, Interruption(run_dir.last)],
        logger=[instantiate(options, save_dir=str(run_dir.path)) for options in config["logger"].values() if options],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=str(run_dir.path),
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the data module's samplers give every process its share
        _convert_="all",
    )

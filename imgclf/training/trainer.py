"""What a Trainer is given beside its own options: callbacks, loggers, precision and the processes that share a run."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger

from imgclf.checkpoints.files import AtomicCheckpointIO
from imgclf.core.device import choose_precision
from imgclf.models.network import Network
from imgclf.runs.run_dir import RunDir
from imgclf.training.callbacks import CheckpointMetadata
from imgclf.training.history import History
from imgclf.training.interruption import Interruption


def trainer_arguments(
    config: Mapping[str, Any],
    run_dir: RunDir,
    device: torch.device,
    network: Network,
    callbacks: Sequence[pl.Callback],
    loggers: Sequence[Logger],
) -> dict[str, Any]:
    """The arguments that ``instantiate(config["trainer"], **arguments)`` needs beside the options themselves.

    Args:
        config: the run's configuration, plain types.
        run_dir: where metrics.csv and checkpoints go.
        device: what this process computes on.
        network: chooses the precision, where that is "auto".
        callbacks: those of the configuration; History, CheckpointMetadata and Interruption join them.
        loggers: those of the configuration.
    """

    def write_metrics(rows: list[dict[str, Any]]) -> None:
        run_dir.write_csv("metrics.csv", list(dict.fromkeys(chain(*rows))), rows)

    return {
        **_processes(config),
        "precision": choose_precision(config["trainer"]["precision"], device, network),
        "callbacks": [History(write_metrics), CheckpointMetadata(), *callbacks, Interruption(run_dir.last)],
        "logger": list(loggers),
        "plugins": [AtomicCheckpointIO()],
        "default_root_dir": str(run_dir.path),
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # the data module's samplers give every process its share
    }


def optimizer_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that ``instantiate(config["optimizer"], **arguments)`` needs beside the options themselves.

    Lightning refuses to clip the gradients of a fused optimizer under mixed precision: it is not fused then.
    """
    clips = config["trainer"]["gradient_clip_val"] and "fused" in config["optimizer"]
    return {"fused": False} if clips else {}


def _processes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The Trainer's devices, num_nodes and strategy: DDP for several processes."""
    trainer = config["trainer"]
    devices, nodes, strategy = trainer["devices"], trainer["num_nodes"], trainer["strategy"]
    if devices * nodes == 1:
        strategy = "auto"
    elif strategy in ("auto", "ddp"):  # DDP has to be told if frozen weights get no gradient
        strategy = "ddp_find_unused_parameters_true" if config["model"].get("freeze_epochs") else "ddp"
    return {"devices": devices, "num_nodes": nodes, "strategy": strategy}

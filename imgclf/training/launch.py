"""The processes of a run on this machine: how train.py starts them, and what it says when one fails."""

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imgclf import cli
from imgclf.training.distributed import (
    CLOSING,
    LOST,
    OURS,
    Terminated,
    cluster_environment,
    continues,
    is_torchrun,
    signals_kept,
)

# Hydra's options of the whole sweep, which are no part of one job's.
SWEEP_OPTIONS = re.compile(r"[+~]*hydra[./](run|sweep|mode|launcher|sweeper|callbacks)\b")


def as_started(trainer: dict[str, Any]) -> dict[str, Any]:
    """The options with ``devices`` and ``num_nodes`` as torchrun was told them, unless they ask for something else."""
    world, here = (int(os.environ.get(name, 0)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    devices, nodes = trainer["devices"], trainer["num_nodes"]
    if here and ((devices, nodes) == (here, 1) or (devices, nodes) == (world, 1)):
        return {**trainer, "devices": here, "num_nodes": world // here}
    return trainer


def must_launch(trainer: Mapping[str, Any]) -> bool:
    """Whether the processes that ``devices`` and ``num_nodes`` ask for have still to be started.

    Raises:
        ValueError: they are on several machines, where something else has to start them.
    """
    devices, nodes = trainer["devices"], trainer["num_nodes"]
    environment = cluster_environment()
    # A SLURM job of one task holds a machine, and may start as many processes there as it wants.
    alone = environment is None or (environment.world_size() == 1 and not is_torchrun(environment))
    if alone and nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={nodes}: on every machine run torchrun --nnodes={nodes} --nproc-per-node={devices} "
            "--rdzv-backend=c10d --rdzv-endpoint=HOST:29500 train.py ... with these options (HOST: one of them), or "
            f"srun python train.py ... in a SLURM job of --nodes={nodes} --ntasks-per-node={devices}"
        )
    return alone and devices > 1


def launch(script: str, devices: int) -> None:
    """Runs this Hydra job again as ``devices`` processes of this machine, all in the job's folder, and waits for them.

    Raises:
        ChildProcessError: says why the first process that failed did.
        KeyboardInterrupt: stopped by Ctrl-C or a signal; Terminated by SIGTERM.
    """
    import torch
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.types import Quote, QuotedString
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    options = [option for option in hydra.overrides.hydra if not SWEEP_OPTIONS.match(option)]
    sources = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    main = next(source.path for source in hydra.runtime.config_sources if source.provider == "main")
    command = [
        *(os.path.abspath(script), "--config-path", main.removeprefix("file://")),
        *("--config-name", hydra.job.config_name),
        *(word for path in sources for word in ("--config-dir", path.removeprefix("file://"))),
        *(
            *hydra.overrides.task,
            *options,
            "hydra.mode=RUN",
            f"hydra.run.dir={QuotedString(str(folder), Quote.single).with_quotes()}",
        ),
    ]
    threads = max(1, torch.get_num_threads() // devices)
    environment = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        "HYDRA_FULL_ERROR": str(int(cli.tracebacks)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(CLOSING),
        # Of the C++ parts: that a connection has ended, which is said here more clearly.
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
    }
    with _silent_launcher(), signals_kept(), _environment_with(environment), tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            *(1, 1, devices),
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            run_id=f"{OURS}{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=0.2,
        )
        try:
            elastic_launch(config, sys.executable)(*command)
        except SignalException as stop:
            kind = Terminated if stop.sigval == signal.SIGTERM else KeyboardInterrupt
            raise kind(continues(folder).removeprefix("; ")) from stop
        except ChildFailedError as error:
            raise _reason(error.failures, devices, folder) from None


def _reason(failures: Mapping[int, Any], count: int, folder: Path) -> ChildProcessError:
    """The exception for what ended first, by torch's ProcessFailures of the ranks that failed."""
    causes = {rank: failure for rank, failure in failures.items() if failure.exitcode != LOST} or failures
    first = next(iter(causes))  # in the order they ended: torch stops the others once one has
    code = causes[first].exitcode
    told = [failure.error_file_data for failure in causes.values() if "imgclf" in failure.error_file_data]
    if code == 1 and told:
        return ChildProcessError(min(told, key=lambda data: data["timestamp"])["message"].removeprefix("error: "))
    ending = f"ended with exit code {code}" if code > 0 else f"ended with signal {causes[first].signal_name()}"
    if code == 130:
        ending = "was interrupted"
    elif code == -signal.SIGKILL:
        ending += " (the system's, if memory ran out)"
    return ChildProcessError(f"process {first + 1} of {count} {ending}, so the run stopped{continues(folder)}")


@contextlib.contextmanager
def _environment_with(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _silent_launcher() -> Iterator[None]:
    """Nothing from torch's launcher, whose tables and warnings say less than one line can."""
    loggers = [logging.getLogger(f"torch.distributed.{name}") for name in ("elastic", "launcher", "run")]
    silent = logging.NullHandler()
    for logger in loggers:
        logger.addHandler(silent)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(silent)
            logger.propagate = True

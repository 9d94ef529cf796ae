"""Starts the processes of a run on this machine, waits for them, and says why one failed."""

import contextlib
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgclf.runs.resume import hint_if_saved, resume_hint
from imgclf.training.cluster import check_devices, must_launch
from imgclf.training.distributed import CLOSING, LOST, OURS, Terminated, signals_kept

if TYPE_CHECKING:
    import torch

# Hydra's options of a sweep as a whole, which are no part of one of its jobs.
SWEEP_OPTIONS = re.compile(r"[+~]*hydra[./](run|sweep|mode|launcher|sweeper|callbacks)\b")


def launch_if_needed(script: str, trainer: Mapping[str, Any], device: "torch.device", tracebacks: bool) -> bool:
    """Starts the processes of the run and waits for them, unless it has one process, or something else started them.

    Args:
        script: the file that was started, such as train.py.
        trainer: ``devices``, the processes on this machine, and ``num_nodes``, the machines.
        device: what each process computes on.
        tracebacks: whether the processes print the traceback of an error.

    Returns:
        Whether there were processes to start. Then the run has ended.

    Raises:
        ValueError: there are too few GPUs, or other machines have to start their processes.
        ChildProcessError, KeyboardInterrupt: as ``launch`` does.
    """
    check_devices(trainer["devices"], device)
    needed = must_launch(trainer)
    if needed:
        launch(script, trainer["devices"], tracebacks)
    return needed


def launch(script: str, devices: int, tracebacks: bool = False) -> None:
    """Runs this Hydra job again as ``devices`` processes of this machine, all in the job's folder, and waits for them.

    Args:
        script: the file that was started, such as train.py.
        devices: how many processes.
        tracebacks: whether they print the traceback of an error.

    Raises:
        ChildProcessError: says why the first process that failed did.
        KeyboardInterrupt: the run was stopped by Ctrl-C or a signal; Terminated if that was SIGTERM.
    """
    import torch  # lazy: only this function needs it
    from hydra.core.hydra_config import HydraConfig
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    folder = Path(HydraConfig.get().runtime.output_dir)
    environment = {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // devices))),
        "HYDRA_FULL_ERROR": str(int(tracebacks)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(CLOSING),
        # torch's C++ code warns that a connection has ended, which ``_reason`` says more clearly.
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
    }
    with _silent_launcher(), signals_kept(), _environment_with(environment), tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=devices,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
            run_id=f"{OURS}{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            monitor_interval=0.2,
        )
        try:
            elastic_launch(config, sys.executable)(os.path.abspath(script), *_job_arguments())
        except SignalException as stop:
            kind = Terminated if stop.sigval == signal.SIGTERM else KeyboardInterrupt
            raise kind(resume_hint(folder) if hint_if_saved(folder) else "") from stop
        except ChildFailedError as error:
            raise _reason(error.failures, devices, folder) from None


def _job_arguments() -> list[str]:
    """The command line that runs this Hydra job alone, in the folder that it has."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.types import Quote, QuotedString

    hydra = HydraConfig.get()
    folder = QuotedString(hydra.runtime.output_dir, Quote.single).with_quotes()
    paths = {"main": [], "command-line": []}
    for source in hydra.runtime.config_sources:
        paths.setdefault(source.provider, []).append(source.path.removeprefix("file://"))
    arguments = ["--config-path", paths["main"][0], "--config-name", str(hydra.job.config_name)]
    for path in paths["command-line"]:
        arguments += ["--config-dir", path]
    options = [option for option in hydra.overrides.hydra if not SWEEP_OPTIONS.match(option)]
    return [*arguments, *hydra.overrides.task, *options, "hydra.mode=RUN", f"hydra.run.dir={folder}"]


def _reason(failures: Mapping[int, Any], count: int, folder: Path) -> ChildProcessError:
    """The exception that says what ended first, from torch's ProcessFailure of every rank that failed."""
    causes = {rank: failure for rank, failure in failures.items() if failure.exitcode != LOST} or failures
    first = next(iter(causes))  # they come in the order they ended: torch stops the others once one has
    code = causes[first].exitcode
    told = [failure.error_file_data for failure in causes.values() if "imgclf" in failure.error_file_data]
    if code == 1 and told:
        return ChildProcessError(min(told, key=lambda data: data["timestamp"])["message"].removeprefix("error: "))
    ending = f"ended with exit code {code}" if code > 0 else f"ended with signal {causes[first].signal_name()}"
    if code == 130:
        ending = "was interrupted"
    elif code == -signal.SIGKILL:
        ending += " (the system sends it if memory runs out)"
    return ChildProcessError(f"process {first + 1} of {count} {ending}, so the run stopped{hint_if_saved(folder)}")


@contextlib.contextmanager
def _environment_with(values: Mapping[str, str]) -> Iterator[None]:
    """Within this context, the environment has these variables."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _silent_launcher() -> Iterator[None]:
    """Within this context, torch's launcher logs nothing: its tables say less than one line can."""
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

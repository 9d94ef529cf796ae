"""Starts the processes of a run on this machine, waits for them, and says why one failed."""

import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Mapping
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
    """Runs this Hydra job again as several processes of this machine, all in the job's folder, and waits for them.

    Args:
        script: the file that was started, such as train.py.
        trainer: ``devices``, the processes on this machine, and ``num_nodes``, the machines.
        device: what each process computes on.
        tracebacks: whether the processes print the traceback of an error.

    Returns:
        Whether the run has ended. False: it needs one process, or something else has started its processes.

    Raises:
        ValueError: there are too few GPUs, or other machines have to start their processes.
        ChildProcessError: says why the first process that failed did.
        KeyboardInterrupt: the run was stopped by Ctrl-C or a signal; Terminated if that was SIGTERM.
    """
    check_devices(trainer["devices"], device)
    if not must_launch(trainer):
        return False
    import torch  # lazy: only this function needs it
    from hydra.core.hydra_config import HydraConfig
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    devices, folder = trainer["devices"], Path(HydraConfig.get().runtime.output_dir)
    before, silence = dict(os.environ), logging.root.manager.disable
    os.environ |= {
        "HYDRA_FULL_ERROR": str(int(tracebacks)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(CLOSING),
        # torch's C++ code warns that a connection has ended, which ``_reason`` says more clearly.
        "TORCH_CPP_LOG_LEVEL": before.get("TORCH_CPP_LOG_LEVEL", "ERROR"),
        "OMP_NUM_THREADS": before.get("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // devices))),
    }
    logging.disable(logging.CRITICAL)  # torch's launcher logs tables, which say less than one line can
    try:
        with signals_kept(), tempfile.TemporaryDirectory() as logs:
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
            elastic_launch(config, sys.executable)(os.path.abspath(script), *_job_arguments())
    except SignalException as stop:
        kind = Terminated if stop.sigval == signal.SIGTERM else KeyboardInterrupt
        raise kind(resume_hint(folder) if hint_if_saved(folder) else "") from stop
    except ChildFailedError as error:
        raise _reason(error.failures, devices, folder) from None
    finally:
        logging.disable(silence)
        os.environ.clear()
        os.environ.update(before)
    return True


def _job_arguments() -> list[str]:
    """The command line that runs this Hydra job alone, in the folder that it has."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.types import Quote, QuotedString

    hydra = HydraConfig.get()
    folder = QuotedString(hydra.runtime.output_dir, Quote.single).with_quotes()
    arguments = ["--config-name", str(hydra.job.config_name)]
    flags = {"main": "--config-path", "command-line": "--config-dir"}
    for source in hydra.runtime.config_sources:
        if source.provider in flags:
            arguments += [flags[source.provider], source.path.removeprefix("file://")]
    options = [option for option in hydra.overrides.hydra if not SWEEP_OPTIONS.match(option)]
    return [*arguments, *hydra.overrides.task, *options, "hydra.mode=RUN", f"hydra.run.dir={folder}"]


def _reason(failures: Mapping[int, Any], count: int, folder: Path) -> ChildProcessError:
    """The exception that says what ended first, from torch's ProcessFailure of every rank that failed."""
    causes = {rank: failure for rank, failure in failures.items() if failure.exitcode != LOST} or failures
    first = next(iter(causes))  # torch lists them in the order in which they ended
    code = causes[first].exitcode
    told = [failure.error_file_data for failure in causes.values() if "imgclf" in failure.error_file_data]
    if code == 1 and told:
        return ChildProcessError(min(told, key=lambda data: data["timestamp"])["message"].removeprefix("error: "))
    ending = f"ended with exit code {code}" if code > 0 else f"ended with signal {causes[first].signal_name()}"
    if code == 130:
        ending = "was interrupted"
    elif code == -getattr(signal, "SIGKILL", 9):
        ending += " (the system sends it if memory runs out)"
    return ChildProcessError(f"process {first + 1} of {count} {ending}, so the run stopped{hint_if_saved(folder)}")

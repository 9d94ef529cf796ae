"""One run on several processes: how they find each other, agree, and end together. launch.py starts them.

Heavy imports stand inside functions: every command imports this file at its start.
"""

import contextlib
import json
import logging
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgclf.training.cluster import check_started, cluster_environment

if TYPE_CHECKING:
    import torch
    from lightning.fabric.plugins.environments import ClusterEnvironment

    from imgclf.data.datamodule import ImageDataModule
    from imgclf.runs.run_dir import RunDir

OURS = "imgclf-"  # the run id of processes that ``launch`` started begins with this
LOST = 3  # exit code of a process that cannot go on because another one has ended
JOINING = timedelta(minutes=5)  # how long processes wait for the last one to start
CLOSING = 20  # seconds that processes get to end by themselves before they are killed
# Found in the message of the RuntimeError that torch raises where another process has ended.
BROKEN = re.compile(r"gloo|nccl|c10d|ProcessGroup|TCPStore|connection (was )?(closed|reset)|broken pipe", re.IGNORECASE)


class SilentExit(Exception):
    """Ends this process without a message, with exit code ``code``: another process speaks for all."""

    def __init__(self, code: int) -> None:
        self.code = code


class Terminated(KeyboardInterrupt):
    """SIGTERM. It ends a process as Ctrl-C does, but with exit code 143."""


def terminate(number: int, frame: Any) -> None:
    """A signal handler that raises Terminated."""
    raise Terminated


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """Restores the signal handlers on leaving."""
    names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")  # Windows lacks three of them
    before = {number: signal.getsignal(number) for name in names if (number := getattr(signal, name, None))}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # not the main thread, where nothing was changed
            for name, handler in before.items():
                signal.signal(name, handler)


def started_by_us() -> bool:
    """Whether ``launch`` started this process. Then ``launch`` tells the user how it ended."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "").startswith(OURS)


def report(line: str) -> str | int:
    """What ``sys.exit`` has to get so that the user sees ``line``: the line, or 1 where ``launch`` prints it."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not (started_by_us() and file):
        return line
    Path(file).write_text(json.dumps({"message": line, "timestamp": time.time(), "imgclf": True}))
    return 1


def end_with_parent() -> None:
    """Has Linux kill this process if ``launch`` is killed, and so cannot end it."""
    if started_by_us():
        import ctypes  # lazy: of no use to other processes

        with contextlib.suppress(OSError, AttributeError, TypeError):  # only Linux has it
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Processes:
    """The processes of this run, as a context manager; it does nothing where there is only one.

    On entering, the processes find each other. Within the context only the first one prints and logs, and of those that
    fail only the first one to fail says so. On leaving, the connection is closed.

    Args:
        trainer: the Trainer's options; ``devices`` counts processes on this machine, ``num_nodes`` machines.
        device: what each process computes on.
        folder: the empty folder that Hydra made for this process; the run's own only if this is the first process.

    Attributes:
        rank: the number of this process, from 0.

    Raises:
        ValueError: another number of processes was started than the options ask for.
        ConnectionError: a process did not come, or has ended.
    """

    def __init__(self, trainer: Mapping[str, Any], device: "torch.device", folder: Path) -> None:
        self.rank, self._local_rank, self._world = 0, 0, 1
        self._trainer, self._device, self._folder = trainer, device, folder
        self._store: Any = None
        self._silence = contextlib.ExitStack()

    def __enter__(self) -> "Processes":
        environment, wanted = cluster_environment(), self._trainer["devices"] * self._trainer["num_nodes"]
        if environment is None or environment.world_size() == wanted == 1:
            return self
        self.rank, self._local_rank = environment.global_rank(), environment.local_rank()
        try:
            check_started(environment, self._trainer)
            self._join(environment)
        except Exception as error:
            if self.rank == 0:
                raise
            with contextlib.suppress(OSError):
                os.rmdir(self._folder)
            time.sleep(CLOSING)  # the first process needs time to say it: torchrun ends all once one has ended
            raise SilentExit(1) from error
        if self.rank:
            nowhere = self._silence.enter_context(open(os.devnull, "w"))
            self._silence.enter_context(contextlib.redirect_stdout(nowhere))
            self._silence.enter_context(contextlib.redirect_stderr(nowhere))
            self._silence.callback(logging.disable, logging.root.manager.disable)
            logging.disable(logging.CRITICAL)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._silence.close()
        if error is None:
            close_process_group()
        elif self._world > 1:
            # The connection stays open until the process ends: the others must not notice before all is said.
            self._fail(error)

    def _join(self, environment: "ClusterEnvironment") -> None:
        import torch  # lazy: seconds
        from torch import distributed

        address, world = f"{environment.main_address}:{environment.main_port}", environment.world_size()
        try:
            store, *_ = next(distributed.rendezvous(f"tcp://{address}", self.rank, world, timeout=JOINING))
            store = distributed.PrefixStore("imgclf", store)
            store.set(f"here/{self.rank}", "")
            store.wait([f"here/{rank}" for rank in range(world)], JOINING)
        except (RuntimeError, OSError) as error:
            raise ConnectionError(
                f"{world} processes were to meet at {address}, and not all came within "
                f"{JOINING.total_seconds() / 60:.0f} minutes: start every one of them, and check that this address can "
                "be reached"
            ) from error
        backend = "cpu:gloo,cuda:nccl" if self._device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=self.rank, world_size=world)
        if self._device.type == "cuda":
            torch.cuda.set_device(self._local_rank)
        self._world, self._store = world, store

    def _fail(self, error: BaseException) -> None:
        """Raises another error in place of this one, if another process tells the user; else returns."""
        if isinstance(error, KeyboardInterrupt) and (self.rank or started_by_us()):
            raise SilentExit(130) from error
        if not isinstance(error, Exception):
            return
        import torch  # lazy: seconds

        said = isinstance(error, RuntimeError) and BROKEN.search(str(error))
        lost_another = said or isinstance(error, torch.distributed.DistError)
        if started_by_us():  # ``launch`` knows which process failed first
            if lost_another:
                raise SilentExit(LOST) from error
            return
        try:
            first_to_fail = self._store.add("failed", 1) == 1
        except RuntimeError:  # the process that keeps the count has ended itself
            first_to_fail = True
        if not first_to_fail:
            raise SilentExit(1) from error
        if lost_another:
            from imgclf.runs.resume import hint_if_saved  # lazy: of no use to other commands

            raise ConnectionError(
                f"another process of this run has ended, so it stopped{hint_if_saved(self._folder)}"
            ) from error

    def broadcast(self, value: Any) -> Any:
        """The value that the first process gives; the other processes may give anything."""
        if self._world == 1:
            return value
        import torch  # lazy: seconds

        values = [value]
        torch.distributed.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def prepare(self, data: "ImageDataModule") -> None:
        """Calls ``data.prepare_data()`` on the first process; then on the first of every machine; then on the others.

        Lightning's hook of that name would come too late: the network needs the shape of the images.
        """
        import torch  # lazy: seconds

        turn = 0 if self.rank == 0 else 1 if self._local_rank == 0 else 2
        for now in range(3):
            if now == turn:
                data.prepare_data()
            if self._world > 1:
                torch.distributed.all_reduce(torch.zeros(1))  # a barrier that needs no GPU, unlike torch's own

    @contextlib.contextmanager
    def claim(self, run_dir: "RunDir") -> Iterator["RunDir"]:
        """The one folder of all processes: the first one enters it and writes there; the others only read."""
        if self.rank == 0:
            with run_dir:
                self._folder = Path(self.broadcast(str(run_dir.path)))
                yield run_dir
            return
        own, self._folder = run_dir.path, Path(self.broadcast(None))
        with contextlib.suppress(OSError):
            os.rmdir(own)  # the default folder that Hydra made for this process
        yield type(run_dir)(self._folder)


def close_process_group() -> None:
    """Closes the connection to the other processes, if there is one: this process is on its own from here on."""
    import torch  # lazy: seconds

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

"""One run on several processes: how they find each other, agree, and end together; launch.py starts them.

Nothing heavy is imported before it is needed: every command reads this file.
"""

import contextlib
import json
import logging
import os
import re
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from lightning.fabric.plugins.environments import ClusterEnvironment

    from imgclf.data.datamodule import ImageDataModule
    from imgclf.runs.run_dir import RunDir

OURS = "imgclf-"  # how the run ids of processes begin that ``launch`` started
LOST = 3  # exit code of a process that cannot go on because another one has ended
JOINING = timedelta(minutes=5)  # how long processes wait for the last one to start
CLOSING = 20  # seconds that processes get to end by themselves before they are killed
BROKEN = re.compile(r"gloo|nccl|c10d|ProcessGroup|TCPStore|connection (was )?(closed|reset)|broken pipe", re.IGNORECASE)


class Quiet(Exception):
    """Ends this process without a word, with exit code ``code``: another process speaks for all."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a process as Ctrl-C does, but with exit code 143."""


def terminate(number: int, frame: Any) -> None:
    """A signal handler."""
    raise Terminated


def started_by_us() -> bool:
    """Whether ``launch`` started this process; then ``launch`` speaks to the user when it ends."""
    return os.environ.get("TORCHELASTIC_RUN_ID", "").startswith(OURS)


def report(line: str) -> str | int:
    """What to ``sys.exit`` with to say ``line``: itself, or 1 after handing it to ``launch``, which will say it."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not (started_by_us() and file):
        return line
    Path(file).write_text(json.dumps({"message": line, "timestamp": time.time(), "imgclf": True}))
    return 1


def end_with_parent() -> None:
    """Has Linux kill this process when ``launch`` is killed, which then cannot do it."""
    if started_by_us():
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def continues(folder: Path) -> str:
    """The end of a sentence, with what continues the run in ``folder``; empty if nothing of it was saved."""
    if not (folder / "checkpoints" / "last.ckpt").exists():
        return ""
    from imgclf.core.text import shell_value

    return f"; hydra.run.dir={shell_value(folder)} resume=true continues it"


@contextlib.contextmanager
def signals_kept() -> Iterator[None]:
    """Undoes what is done to signal handlers, however it ends."""
    names = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
    before = {name: signal.getsignal(name) for name in names}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # another thread than the main one: nothing was changed
            for name, handler in before.items():
                signal.signal(name, handler)


class Processes:
    """The processes of this run, as a context manager; without effect where there is one only.

    On entering, they find each other. From then on only the first speaks, and only the first to fail. On leaving,
    their connection is closed.

    Args:
        trainer: ``devices``, processes on this machine, and ``num_nodes``, machines with as many.
        device: what each of them computes on.
        folder: this process's own, empty; not where the run goes, unless this is the first.

    Attributes:
        rank: this one's number, from 0.
        world: how many there are.

    Raises:
        ValueError: as many processes as asked for were not started, or there are fewer GPUs than processes.
        ConnectionError: some did not come, or one has ended.
    """

    def __init__(self, trainer: Mapping[str, Any], device: "torch.device", folder: Path) -> None:
        self.rank, self.world = 0, 1
        self._trainer, self._device, self._folder = trainer, device, folder
        self._local_rank = 0
        self._store: torch.distributed.Store | None = None
        self._silence = contextlib.ExitStack()

    def __enter__(self) -> "Processes":
        environment = cluster_environment()
        if environment is None or environment.world_size() == self._wanted == 1:
            return self
        self.rank, self._local_rank = environment.global_rank(), environment.local_rank()
        try:
            self._check(environment)
            self._join(environment)
        except Exception as error:
            if self.rank and self._store is None:
                with contextlib.suppress(OSError):
                    os.rmdir(self._folder)
                time.sleep(CLOSING)  # so that the first can say it: torchrun ends all as soon as one has
                raise Quiet(1) from error
            raise
        if self.rank:
            self._be_silent()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        self._silence.close()
        if error is None:
            close_process_group()
            return
        if self.world == 1:
            return
        # The connection is left to the end of the process: the others must not notice before all is said.
        if isinstance(error, KeyboardInterrupt) and (self.rank or started_by_us()):
            raise Quiet(130) from error
        if not isinstance(error, Exception):
            return
        broken = _is_broken(error)
        if started_by_us():
            if broken:
                raise Quiet(LOST) from error
            return
        if not self._is_first_to_fail():
            raise Quiet(1) from error
        if broken:
            raise ConnectionError(
                f"another process of this run has ended, so it stopped{continues(self._folder)}"
            ) from error

    def broadcast(self, value: Any) -> Any:
        """The first process's value."""
        if self.world == 1:
            return value
        import torch

        values = [value]
        torch.distributed.broadcast_object_list(values, device=torch.device("cpu"))
        return values[0]

    def prepare(self, data: "ImageDataModule") -> None:
        """``data.prepare_data()`` on the first process; then on the first of every machine; then on the others."""
        import torch

        turn = 0 if self.rank == 0 else 1 if self._local_rank == 0 else 2
        for now in range(3 if self.world > 1 else 1):
            if now == turn:
                data.prepare_data()
            if self.world > 1:
                torch.distributed.all_reduce(torch.zeros(1))  # a barrier that needs no GPU

    @property
    def _wanted(self) -> int:
        return self._trainer["devices"] * self._trainer["num_nodes"]

    def _check(self, environment: "ClusterEnvironment") -> None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        devices, nodes, world = self._trainer["devices"], self._trainer["num_nodes"], environment.world_size()
        torchrun = is_torchrun(environment)
        if torchrun and HydraConfig.get().mode is RunMode.MULTIRUN:
            raise ValueError(
                "torchrun starts one run, not a sweep: use python train.py -m ..., and every job starts its own"
            )
        here = os.environ.get("LOCAL_WORLD_SIZE" if torchrun else "SLURM_NTASKS_PER_NODE", str(devices))
        if world != self._wanted or here != str(devices):
            options = f"torchrun --nnodes={nodes} --nproc-per-node={devices}"
            if not torchrun:
                options = f"srun in a job of --nodes={nodes} --ntasks-per-node={devices}"
            raise ValueError(
                f"trainer.devices={devices} * trainer.num_nodes={nodes} is {self._wanted}, but the number of processes "
                f"started is {world}, {here} of them here: set these options to what was started, or use {options}"
            )

    def _join(self, environment: "ClusterEnvironment") -> None:
        import torch
        from torch import distributed

        address = f"tcp://{environment.main_address}:{environment.main_port}"
        world = environment.world_size()
        try:
            store, *_ = next(distributed.rendezvous(address, self.rank, world, timeout=JOINING))
            store = distributed.PrefixStore("imgclf", store)
            store.set(f"here/{self.rank}", "")
            store.wait([f"here/{rank}" for rank in range(world)], JOINING)
        except (RuntimeError, OSError) as error:
            minutes = JOINING.total_seconds() / 60
            raise ConnectionError(
                f"{world} processes were to meet at {address.removeprefix('tcp://')}, and not all came within "
                f"{minutes:.0f} minutes: start every one of them, and check that this address can be reached"
            ) from error
        backend = "cpu:gloo,cuda:nccl" if self._device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=store, rank=self.rank, world_size=world)
        if self._device.type == "cuda":
            torch.cuda.set_device(self._local_rank)
        self.world, self._store = world, store

    def _be_silent(self) -> None:
        nowhere = self._silence.enter_context(open(os.devnull, "w"))  # noqa: SIM115
        self._silence.enter_context(contextlib.redirect_stdout(nowhere))
        self._silence.enter_context(contextlib.redirect_stderr(nowhere))
        self._silence.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.CRITICAL)

    def _is_first_to_fail(self) -> bool:
        try:
            return self._store is None or self._store.add("failed", 1) == 1
        except RuntimeError:  # the process that keeps the count has ended itself
            return True

    @contextlib.contextmanager
    def claim(self, folder: "RunDir") -> Iterator["RunDir"]:
        """The one folder of all: the first process claims it; the others read there, and never write."""
        if self.rank:
            own, self._folder = folder.path, Path(self.broadcast(None))
            with contextlib.suppress(OSError):
                os.rmdir(own)  # Hydra's, where each process was given a default folder of its own
            yield type(folder)(self._folder)
            return
        with folder:
            self._folder = Path(self.broadcast(str(folder.path)))
            yield folder


def close_process_group() -> None:
    """Closes this process's connection to the others, if there is one: from here on it is on its own."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_devices(devices: int, device: "torch.device") -> None:
    """Raises ValueError if this machine has fewer GPUs than ``devices``; a CPU serves any number of processes."""
    import torch

    if device.type == "cpu" or devices == 1:
        return
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if devices > count:
        raise ValueError(
            f"trainer.devices={devices}: PyTorch sees {count} GPU{'s' * (count != 1)} here; use "
            f"trainer.devices={count}, or trainer.accelerator=cpu"
        )


def cluster_environment() -> "ClusterEnvironment | None":
    """Lightning's, of what started this process along with others: torchrun, SLURM, or nothing."""
    from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where srun exists and was not used
        kind = next((kind for kind in (TorchElasticEnvironment, SLURMEnvironment) if kind.detect()), None)
        try:
            return kind() if kind else None
        except RuntimeError as error:  # SLURM options that leave open how many processes a machine gets
            raise ValueError(" ".join(str(error).split())) from error


def is_torchrun(environment: "ClusterEnvironment") -> bool:
    """Whether that is torchrun's."""
    from lightning.fabric.plugins.environments import TorchElasticEnvironment

    return isinstance(environment, TorchElasticEnvironment)


def _is_broken(error: BaseException) -> bool:
    """Whether it is what a process meets when another one has ended."""
    import torch

    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and BROKEN.search(str(error)) is not None

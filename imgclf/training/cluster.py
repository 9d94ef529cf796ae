"""How many processes a run has: what was asked for, what the machine can serve, and what torchrun or SLURM started."""

import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from lightning.fabric.plugins.environments import ClusterEnvironment

SLURM_INTERACTIVE_STEP = str(0xFFFFFFFA)  # the step of the shell that salloc opens on a compute node


def cluster_environment() -> "ClusterEnvironment | None":
    """Lightning's description of the processes that torchrun or SLURM started; None if this process was started alone.

    Raises ValueError where SLURM's options leave open how many processes each machine gets.
    """
    from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment  # lazy: seconds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning warns where srun exists and was not used
        kind = next((kind for kind in (TorchElasticEnvironment, SLURMEnvironment) if kind.detect()), None)
        if kind is SLURMEnvironment and _is_slurm_shell():
            return None
        try:
            return kind() if kind else None
        except RuntimeError as error:
            raise ValueError(" ".join(str(error).split())) from error


def _is_slurm_shell() -> bool:
    """Whether this is a shell within an allocation, where only the user starts processes."""
    step = os.environ.get("SLURM_STEP_ID")
    return step == SLURM_INTERACTIVE_STEP or (step is None and "SLURM_PROCID" not in os.environ)


def _is_torchrun(environment: "ClusterEnvironment") -> bool:
    from lightning.fabric.plugins.environments import TorchElasticEnvironment  # lazy: seconds

    return isinstance(environment, TorchElasticEnvironment)


def check_started(environment: "ClusterEnvironment", trainer: Mapping[str, Any]) -> None:
    """Raises ValueError if other processes were started than the options ``devices`` and ``num_nodes`` ask for.

    The message says which options fit what was started, and which command fits the options.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    devices, nodes, world = trainer["devices"], trainer["num_nodes"], environment.world_size()
    torchrun = _is_torchrun(environment)
    if torchrun and HydraConfig.get().mode is RunMode.MULTIRUN:
        raise ValueError(
            "torchrun starts one run, not a sweep: use python train.py -m ..., and every job starts its own processes"
        )
    here = os.environ.get("LOCAL_WORLD_SIZE" if torchrun else "SLURM_NTASKS_PER_NODE", str(devices))
    if world == devices * nodes and here == str(devices):
        return
    command = f"torchrun --nnodes={nodes} --nproc-per-node={devices}"
    if not torchrun:
        command = f"srun in a job of --nodes={nodes} --ntasks-per-node={devices}"
    raise ValueError(
        f"devices={devices}: on num_nodes={nodes} that asks for {devices * nodes} processes, but {world} were started, "
        f"{here} of them on this machine: change these options, or use {command}"
    )


def as_started(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The options with ``devices`` and ``num_nodes`` as torchrun was told them, unless they ask for something else."""
    world, here = (int(os.environ.get(name, 0)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    if here and (trainer["devices"], trainer["num_nodes"]) in ((here, 1), (world, 1)):
        return {**trainer, "devices": here, "num_nodes": world // here}
    return dict(trainer)


def must_launch(trainer: Mapping[str, Any]) -> bool:
    """Whether this process has still to start the others that ``devices`` and ``num_nodes`` ask for.

    Raises ValueError if they are on several machines, where something else has to start them.
    """
    devices, nodes = trainer["devices"], trainer["num_nodes"]
    environment = cluster_environment()
    # A SLURM job of one task has a machine for itself, and may start as many processes there as it wants.
    alone = environment is None or (environment.world_size() == 1 and not _is_torchrun(environment))
    if alone and nodes > 1:
        raise ValueError(
            f"num_nodes={nodes}: on every machine run torchrun --nnodes={nodes} --nproc-per-node={devices} "
            "--rdzv-backend=c10d --rdzv-endpoint=HOST:29500 train.py ... with these options (HOST: one of them), or "
            f"srun python train.py ... in a SLURM job of --nodes={nodes} --ntasks-per-node={devices}"
        )
    return alone and devices > 1


def check_devices(devices: int, device: "torch.device") -> None:
    """Raises ValueError if this machine has too few GPUs; a CPU serves any number of processes."""
    import torch  # lazy: seconds

    if device.type == "cpu" or devices == 1:
        return
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if devices > count:
        plural = "s" * (count != 1)
        raise ValueError(
            f"devices={devices}: PyTorch sees {count} GPU{plural} here; use devices={count}, or accelerator=cpu"
        )

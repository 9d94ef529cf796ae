"""Refused: another number of processes than was asked for, and more than the machine has GPUs."""

import pytest
import torch

from imgclf.training.cluster import check_devices, cluster_environment
from tests.conftest import SMALL


@pytest.mark.parametrize(
    ("environment", "options", "parts"),
    [
        (
            {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
            ["trainer=ddp"],
            ["devices=2", "num_nodes=1", "2 processes, but 1", "torchrun --nnodes=1 --nproc-per-node=2"],
        ),
        (
            {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "1"},
            ["trainer=ddp"],
            ["devices=2", "but 4 were started, 1 of them"],
        ),
        (
            {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
            ["trainer=ddp"],
            ["but 4 were started, 2 of them", "srun in a job of --nodes=1 --ntasks-per-node=2"],
        ),
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, ["trainer=ddp"], ["--ntasks-per-node=2"]),
    ],
)
def test_other_processes_than_were_asked_for_are_refused(environment, options, parts, train, monkeypatch, tmp_path):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    line = train(*SMALL, *options, "hydra.run.dir=run").error
    for part in parts:
        assert part in line
    assert not (tmp_path / "run").exists()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match=r"devices=2: .* 1 GPU .*devices=1"):
        check_devices(2, torch.device("cuda"))
    check_devices(8, torch.device("cpu"))
    check_devices(1, torch.device("cuda"))


JOB = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "salloc", "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "4"}
FIRST = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODELIST": "localhost"}


@pytest.mark.parametrize("shell", [{}, {**FIRST, "SLURM_STEP_ID": "4294967290"}], ids=["salloc", "interactive step"])
def test_a_shell_within_an_allocation_of_many_tasks_runs_alone(shell, train, monkeypatch):
    for name, value in {**JOB, **shell}.items():
        monkeypatch.setenv(name, value)
    train(*SMALL, "hydra.run.dir=run").ok()


def test_a_step_of_srun_is_one_of_many_processes(monkeypatch):
    for name, value in {**JOB, **FIRST, "SLURM_STEP_ID": "0"}.items():
        monkeypatch.setenv(name, value)
    environment = cluster_environment()
    assert environment is not None
    assert environment.world_size() == 4

"""A run on two processes trains what one process does, ends as a whole, and can be continued."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from imgclf.core.files import read_csv
from tests.conftest import PROJECT, SMALL, write_xrays

PLAIN = ("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.enable_model_summary=false")
# Small differences stay small: no noise, no dropout, plain descent, float32.
EXACT = ("model.hidden=[16]", "optimizer=sgd", "optimizer.lr=0.05", "trainer.precision=32-true", "trainer.max_epochs=2")
TEN = ("data=mnist", "data.batch_size=50", "model=mlp", *EXACT)
TWO = (
    *("data=chest_xray", "data.image_size=16", "data.batch_size=12", "data.balance=weighted_loss", "model=mlp", *EXACT),
    *("classifier.threshold=validation", "objective=val/auroc", "optimizer.lr=0.002"),
)


def train_py(*options: str) -> list[str]:
    return [str(PROJECT / "train.py"), *PLAIN, *options]


def start(command: list[str], folder: Path, **environment: str) -> subprocess.Popen:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "HYDRA_"))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *command], cwd=folder, env={**inherited, **environment}, **pipes)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def rows(folder: Path) -> list[dict[str, float]]:
    return [{name: float(value) for name, value in row.items()} for row in read_csv(folder / "metrics.csv")]


def assert_the_same_training(folder: Path, alone: Path) -> None:
    """The same numbers after the same batches, but for the order in which floats were added."""
    first, second = (
        torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (folder, alone)
    )
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=1e-5), name
    for row, expected in zip(rows(folder), rows(alone), strict=True):
        for name in row.keys() - {"images_per_second", "seconds"}:
            assert row[name] == pytest.approx(expected[name], abs=1e-5), name
    found, expected = (json.loads((f / "metrics.json").read_text()) for f in (folder, alone))
    for name in found.keys() - {"train/seconds", "train/images_per_second"}:
        assert found[name] == pytest.approx(expected[name], abs=1e-5), name
    # Validation while training, each process its part, counted what the evaluation of the whole split did.
    best = rows(folder)[int(found["best_epoch"]) - 1]
    for name in (name for name in found if name.startswith("val/") and name in best):
        assert best[name] == pytest.approx(found[name], abs=1e-5), name


def test_two_processes_train_the_model_that_one_does(script, tmp_path):
    for part, count in (("train", 80), ("test", 30)):
        write_xrays(tmp_path / "chest_xray" / part, count)
    for file in sorted((tmp_path / "chest_xray" / "train" / "NORMAL").iterdir())[::2]:  # so that weights matter
        file.unlink()
    process = start(train_py("data_dir=.", "trainer=ddp", *TWO, "hydra.run.dir='a folder'"), tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert not err
    folder = tmp_path / "a folder"
    assert out.count("epoch 2/2") == 1
    script(*train_py("data_dir=.", *TWO, "hydra.run.dir=alone")).ok()
    assert_the_same_training(folder, tmp_path / "alone")
    assert {path.name for path in folder.iterdir()} == {path.name for path in (tmp_path / "alone").iterdir()}
    assert len(list((folder / "tensorboard").iterdir())) == len(list((tmp_path / "alone" / "tensorboard").iterdir()))
    assert json.loads((folder / "environment.json").read_text())["threads"] == max(1, torch.get_num_threads() // 2)

    script(
        "evaluate.py", "ckpt='a folder/checkpoints/best.ckpt'", "data_dir=.", "accelerator=cpu", "hydra.run.dir=test"
    ).ok()
    found, expected = (json.loads((f / "metrics.json").read_text()) for f in (tmp_path / "test", folder))
    assert found == {name: value for name, value in expected.items() if name.startswith("test/")}
    assert len((tmp_path / "test" / "predictions.csv").read_text().splitlines()) == 1 + 30


@pytest.mark.long
@pytest.mark.parametrize("starter", ["torchrun", "slurm"])
def test_two_machines_train_one_model_in_one_folder(starter, train, tiny_data, tmp_path):
    port = str(free_port())
    command, environments = train_py(f"data_dir={tiny_data}", "trainer=ddp", "trainer.devices=1", *TEN), [{}, {}]
    if starter == "torchrun":  # which tells each process how many machines there are
        meeting = ("--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}")
        command = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *meeting, *command]
    else:
        command.append("trainer.num_nodes=2")
        job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "job", "SLURM_NODELIST": "localhost", "MASTER_PORT": port}
        job |= {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
        environments = [{**job, "SLURM_PROCID": rank, "SLURM_NODEID": rank} for rank in "01"]
    nodes = [start(command, tmp_path, **environment) for environment in environments]
    outputs = [node.communicate(timeout=300) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert sum(out.count("epoch 2/2") for out, _ in outputs) == 1
    (folder,) = (tmp_path / "outputs" / "mnist-mlp").iterdir()
    train(*TEN, "hydra.run.dir=alone").ok()
    assert_the_same_training(folder, tmp_path / "alone")


def wait_for_epoch(folder: Path, epoch: int) -> None:
    deadline = time.monotonic() + 200
    while not ((folder / "metrics.csv").exists() and len(rows(folder)) >= epoch):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = file.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has just ended
            continue
        if parent == str(pid):
            found.append(int(file.parent.name))
    return sorted(found)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the processes in /proc")
def test_what_is_interrupted_or_loses_a_process_stops_and_can_be_continued(train, tiny_data, tmp_path):
    folder = tmp_path / "run"
    endless = train_py(f"data_dir={tiny_data}", "trainer=ddp", *TEN, "hydra.run.dir=run", "trainer.max_epochs=100000")
    run = start(endless, tmp_path)
    wait_for_epoch(folder, 2)
    workers = children(run.pid)
    assert len(workers) == 2
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=300)
    assert run.returncode == 130, err
    assert err.splitlines() == [f"interrupted: hydra.run.dir={folder} resume=true continues it"]
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)

    epochs = len(rows(folder))
    run = start([*endless, "resume=true"], tmp_path)
    wait_for_epoch(folder, epochs + 2)
    workers = children(run.pid)
    os.kill(workers[1], signal.SIGKILL)
    _, err = run.communicate(timeout=300)
    assert run.returncode == 1
    (line,) = err.splitlines()
    assert line.startswith("error: process 2 of 2")
    assert "SIGKILL" in line
    assert line.endswith(f"hydra.run.dir={folder} resume=true continues it")
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)

    epochs = len(rows(folder))
    one = ("trainer=default", "trainer.devices=1", f"trainer.max_epochs={epochs + 1}")
    train(*TEN, "hydra.run.dir=run", "resume=true", *one).ok()
    assert [row["epoch"] for row in rows(folder)] == list(range(1, epochs + 2))
    assert OmegaConf.load(folder / "config.yaml").trainer.devices == 1


@pytest.mark.long
def test_a_sweep_s_jobs_are_distributed_and_what_fails_in_a_process_is_said_once(train, tmp_path):
    sweep = ("-m", *SMALL, "trainer=ddp", "evaluate_on=[val]", "hydra.sweep.dir=sweep", "seed=3")
    train(*sweep).ok()
    assert json.loads((tmp_path / "sweep" / "0" / "metrics.json").read_text())["epochs"] == 1
    assert OmegaConf.load(tmp_path / "sweep" / "0" / "config.yaml").seed == 3
    result = train(*SMALL, "trainer=ddp", "model.hidden=[-1]", "hydra.run.dir=run")
    assert "hidden=[-1]" in result.error
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_frozen_weights_take_no_part(train, tmp_path):
    network = ("model=torchvision", "model.name=squeezenet1_1", "model.freeze_epochs=1", "trainer.max_epochs=2")
    train("data=chest_xray", "data.image_size=32", "data.batch_size=12", "trainer=ddp", *network).ok()

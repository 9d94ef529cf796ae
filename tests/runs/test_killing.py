"""A run that is killed at any moment, and continued, ends as if it had never been killed."""

import contextlib
import multiprocessing
import os
import random
import runpy
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.conftest import PROJECT, write_xrays
from tests.runs.comparison import STEP, VALIDATION, assert_the_same_run, at_call

# Two classes, whose scores are collected; files, which are decoded into a cache first.
XRAYS = (
    *("data=chest_xray", "data_dir=.", "data.image_size=16", "data.batch_size=12", "data.eval_batch_size=4"),
    *("model=mlp", "model.hidden=[8]", "model.dropout=0.2", "classifier.threshold=validation", "augmentation=affine"),
    *("trainer.log_every_n_steps=4", "trainer.max_epochs=4", "callbacks.dashboard.every_n_epochs=2"),
    *("trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.enable_model_summary=false"),
)


HEAVY = (
    *("lightning.pytorch", "torchvision", "torchmetrics.classification", "torch.utils.tensorboard"),
    *("matplotlib.figure", "sklearn.model_selection", "sklearn.metrics", "captum.attr", "hydra", "pytest"),
)


def kill_within(place: str):
    """SIGKILL; where something is being written, once half of it is."""

    def kill(*arguments) -> None:
        if place == "torch:save":
            arguments[1].write(os.urandom(5000))
            arguments[1].flush()
        if place == "pathlib:Path.write_bytes":
            with open(arguments[0], "wb") as file:
                file.write(arguments[1][: len(arguments[1]) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    return kill


def session(options: list[str], folder: Path, killed: tuple[str, int] | float | None) -> None:
    """train.py in a process of its own, which is killed at a call or after so many seconds."""
    multiprocessing.set_start_method("fork", force=True)  # of workers: as in a process started in the usual way
    os.chdir(folder)
    sys.path.insert(0, str(PROJECT))
    sys.argv = [str(PROJECT / "train.py"), *options]
    log = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    with contextlib.ExitStack() as stack:
        if isinstance(killed, tuple):
            stack.enter_context(at_call(*killed, kill_within(killed[0])))
        elif killed:
            threading.Timer(killed, os.kill, (os.getpid(), signal.SIGKILL)).start()
        runpy.run_path(sys.argv[0], run_name="__main__")


@pytest.fixture(scope="module")
def start():
    """Runs a session, forked from a process that has imported what takes long; its exit code, negative if killed."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(list(HEAVY))

    def run(folder: Path, *options: str, killed=None) -> int:
        process = server.Process(target=session, args=(list(options), folder, killed))
        process.start()
        process.join(300)
        return process.exitcode

    return run


PLACES = {  # how often each is called in a run
    STEP: 24,
    VALIDATION: 8,
    "torch:save": 5,
    "pathlib:Path.write_bytes": 20,
    "imgclf.data.memmap_cache:read_image": 110,
    "imgclf.training.finish:evaluate": 3,
    "imgclf.training.tensorboard:render": 10,
    "os:replace": 20,
}


def survive(start, tmp_path, kills: Iterator, times: int, *options: str) -> int:
    """Kills runs so many ``times`` and resumes them; those that end are compared with one that nothing happened to.

    Returns:
        How many of the ``kills`` came too late for that, each of which says when or where.
    """
    for part, count in (("train", 80), ("test", 30)):
        write_xrays(tmp_path / "chest_xray" / part, count)
    recipe = (*XRAYS, *options)
    assert start(tmp_path, *recipe, "hydra.run.dir=whole", "cache_dir=one") == 0, (tmp_path / "output.txt").read_text()
    codes = []
    while codes.count(-signal.SIGKILL) < times:
        killed = next(kills)
        codes.append(start(tmp_path, *recipe, "hydra.run.dir=run", "cache_dir=two", "resume=true", killed=killed))
        assert codes[-1] in (0, -signal.SIGKILL), (tmp_path / "output.txt").read_text()
        for file in (tmp_path / "run" / "checkpoints").glob("*.ckpt"):
            torch.load(file, weights_only=True)
        if codes[-1] == 0:  # it has ended before it was killed: another one begins
            assert_the_same_run(tmp_path / "run", tmp_path / "whole")
            (tmp_path / "run").rename(tmp_path / f"run{len(codes)}")
    assert start(tmp_path, *recipe, "hydra.run.dir=run", "cache_dir=two", "resume=true") == 0
    assert_the_same_run(tmp_path / "run", tmp_path / "whole")
    assert not [file.name for file in (tmp_path / "two").iterdir() if "unfinished" in file.name]
    return codes.count(0)


def test_a_run_killed_in_every_phase_ends_as_if_nothing_had_been(start, tmp_path):
    kills = [
        ("imgclf.data.memmap_cache:read_image", 50),
        (STEP, 9),
        ("torch:save", 3),
        ("imgclf.training.tensorboard:render", 8),
    ]
    assert survive(start, tmp_path, iter(kills), len(kills)) == 0


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_thirty_kills(workers, start, tmp_path):
    draw = random.Random(workers)

    def kills() -> Iterator:
        while True:
            place = draw.choice(list(PLACES))
            yield draw.uniform(0.1, 3) if draw.random() < 1 / 3 else (place, draw.randint(1, PLACES[place]))

    began = time.perf_counter()
    late = survive(start, tmp_path, kills(), 30, f"data.num_workers={workers}")
    seconds = time.perf_counter() - began
    print(f"{workers} workers: 30 kills survived, {late} runs ended before theirs, {seconds:.0f} s")

"""What becomes of a run that is stopped or killed, and of its repetition."""

import contextlib
import csv
import importlib
import json
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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.commands.test_train import TIMES, metrics
from tests.conftest import PROJECT, write_xrays

# Noise, dropout, augmentation and a schedule by steps: whatever a checkpoint might forget. Nine steps an epoch; every
# fourth logs, so that an entry is open wherever the run stops; four batches of validation.
RECIPE = (
    *("data=noisy_mnist", "data.variation=rot-back-rand", "model=mlp", "model.hidden=[16]", "model.dropout=0.2"),
    *("augmentation=affine", "data.batch_size=20", "data.eval_batch_size=5", "trainer.log_every_n_steps=4"),
    *("trainer.max_epochs=3", "callbacks.dashboard.every_n_epochs=3"),
)
CYCLE = ("scheduler=onecycle",)
PLATEAU = (
    *("+scheduler.factory._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "+scheduler.factory._partial_=true"),
    *("+scheduler.factory.patience=0", "+scheduler.factory.threshold=1", "scheduler.interval=epoch"),
    *("scheduler.monitor=val/loss",),
)
AVERAGE = ("callbacks=ema", "callbacks.ema.decay=0.9", "trainer.accumulate_grad_batches=2")


def rows(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name not in ("seconds", "images_per_second")}
            for row in csv.DictReader(file)
        ]


def board(folder) -> dict[str, list[tuple[int, float]]]:
    """Tag to steps and values; of pictures the steps."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    pictures = {tag: [(event.step, 0.0) for event in events.Images(tag)] for tag in events.Tags()["images"]}
    timed = ("images_per_second", *(f"result/{name}" for name in TIMES))
    return {tag: values for tag, values in (scalars | pictures).items() if tag not in timed}


def assert_equal(first, second, name="") -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys(), name
        for key in first:
            if key not in ("dirpath", "seconds", "images_per_second") and not str(key).endswith("_path"):
                assert_equal(first[key], second[key], f"{name}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), name
        for i, pair in enumerate(zip(first, second, strict=True)):
            assert_equal(*pair, f"{name}/{i}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), name
    else:
        assert first == second, name


def assert_the_same_run(folder, whole) -> None:
    """Bit for bit, all but the time it took, and nothing left lying about."""
    assert metrics(folder) == metrics(whole)
    assert rows(folder) == rows(whole)
    for name in ("best.ckpt", "last.ckpt"):
        found, expected = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (folder, whole))
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert_equal(found[part], expected[part], f"{name}/{part}")
        assert found.get("epoch") == expected["epoch"]
        assert_equal(found.get("current_model_state", {}), expected.get("current_model_state", {}), name)
    assert board(folder) == board(whole)
    files, expected = ({str(file.relative_to(run)) for file in run.rglob("*") if "tfevents" not in file.name}
                       for run in (folder, whole))  # fmt: skip
    assert files == expected


@contextlib.contextmanager
def at_call(place: str, count: int, act):
    """Runs ``act`` when ``place``, "module:attribute", is called for the ``count``-th time, from 1; then goes on."""
    module, _, path = place.partition(":")
    owner = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), []

    def patched(*arguments, **options):
        calls.append(1)
        if len(calls) == count:
            act(*arguments)
        return original(*arguments, **options)

    setattr(owner, name, patched)
    try:
        yield
    finally:
        setattr(owner, name, original)


def send(number: int):
    return lambda *_: os.kill(os.getpid(), number)


STEP = "imgclf.models.classifier:Classifier.training_step"
VALIDATION = "imgclf.models.classifier:Classifier.validation_step"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Undisturbed runs, made once each."""
    folders = {}

    def get(train, *recipe):
        if recipe not in folders:
            folders[recipe] = tmp_path_factory.mktemp("whole") / "run"
            result = train(*recipe, f"hydra.run.dir={folders[recipe]}")
            assert result.code == 0, result.err
        return folders[recipe]

    return get


WORKERS = "data.num_workers=2"
EPOCH_END = "imgclf.training.callbacks:Dashboard.on_train_epoch_end"


@pytest.mark.parametrize(
    ("number", "place", "count", "steps", "options"),
    [
        (signal.SIGTERM, STEP, 9, 9, CYCLE),  # the last of an epoch
        (signal.SIGINT, STEP, 12, 12, (*PLATEAU, WORKERS)),
        (signal.SIGINT, STEP, 12, 7, AVERAGE),  # five of the first epoch, its last of one batch; two of the second
        (signal.SIGTERM, VALIDATION, 6, 10, AVERAGE),
        (signal.SIGTERM, "imgclf.figures.style:mistakes", 1, 27, CYCLE),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                (signal.SIGTERM, STEP, 1, 1, CYCLE),
                (signal.SIGTERM, STEP, 9, 9, (*PLATEAU, WORKERS)),
                (signal.SIGTERM, EPOCH_END, 3, 27, CYCLE),
                (signal.SIGTERM, VALIDATION, 1, 9, PLATEAU),
                (signal.SIGTERM, VALIDATION, 12, 27, (*CYCLE, WORKERS)),
                (signal.SIGTERM, EPOCH_END, 1, 9, (*PLATEAU, WORKERS)),
                (signal.SIGTERM, "imgclf.training.fit:evaluate", 2, 27, CYCLE),
            )
        ),
    ],
)
def test_a_signal_ends_a_run_within_a_step_and_resumed_it_ends_as_if_nothing_had_been(
    number, place, count, steps, options, train, whole, tmp_path
):
    folder = tmp_path / "run"
    if number == signal.SIGINT:  # which a shell has jobs in the background ignore, and these tests in them
        signal.signal(number, signal.default_int_handler)
    with at_call(place, count, send(number)):
        result = train(*RECIPE, *options, "hydra.run.dir=run")
    assert result.code == 128 + number
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert result.err.splitlines() == [f"{word}: hydra.run.dir={folder} resume=true continues it"]
    assert not (folder / "metrics.json").exists()
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == steps
    assert train(*RECIPE, *options, "hydra.run.dir=run", "resume=true").code == 0
    assert_the_same_run(folder, whole(train, *RECIPE, *(option for option in options if option != WORKERS)))


FAST = ("data=mnist", "data.batch_size=50", "model=mlp", "model.hidden=[16]", "trainer.max_epochs=3")  # four steps


def test_slurm_s_signal_saves_and_requeues(train, whole, monkeypatch, tmp_path):
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "job", "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1"}
    job |= {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho "$@" >> asked\n')
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with at_call(STEP, 6, send(signal.SIGUSR1)):
        assert train(*FAST, "hydra.run.dir=run", "resume=true").code == 143
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6
    assert train(*FAST, "hydra.run.dir=run", "resume=true").code == 0
    assert_the_same_run(tmp_path / "run", whole(train, *FAST))


def test_resume_never_silently_restarts(train, whole, tmp_path):
    with at_call(STEP, 10, send(signal.SIGTERM)):
        train(*FAST, "hydra.run.dir=run")
    run, again = tmp_path / "run", (*FAST, "hydra.run.dir=run", "resume=true")
    best, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    content, good = torch.load(last, weights_only=True), last.read_bytes()
    for name, value in (("class_names", ["cat", "dog"]), ("network", {"_target_": "CNN"}), ("optimizer", "SGD")):
        torch.save({**content, "imgclf": {**content["imgclf"], name: value}}, last)
        assert f"last.ckpt cannot be resumed with something else ({name} was" in train(*again).error
    last.write_bytes(good)
    assert "optimizer.lr was 0.001, is 0.1" in train(*again, "optimizer.lr=0.1").error
    hidden = best.rename(tmp_path / "best.ckpt")
    for damage in (lambda: last.write_bytes(good[:-1000]), last.unlink):
        damage()
        line = train(*again).error
        assert "last.ckpt" in line
        assert line.endswith("to train anew, use a new folder")
    assert json.loads((run / "environment.json").read_text()).get("resumed") is None  # refused: nothing was touched

    hidden.rename(best)
    epoch = torch.load(best, weights_only=True)["epoch"] + 1
    last.write_bytes(good[:-1000])
    (run / "checkpoints" / ".last.ckpt.123").write_bytes(good[:1000])  # of a session that was killed
    result = train(*again)
    assert result.code == 0, result.err
    said = f"last.ckpt: truncated or not a PyTorch checkpoint: going on from {best}, epoch {epoch}"
    assert said.replace(" ", "") in "".join(result.out.split())  # it is broken into lines
    assert_the_same_run(run, whole(train, *FAST))


def test_environment_json_tells_of_every_session_and_config_yaml_repeats_the_run(train, script, whole, tmp_path):
    with at_call(STEP, 6, send(signal.SIGTERM)):
        train(*FAST, "hydra.run.dir='a run'")
    folder = tmp_path / "a run"
    first = json.loads((folder / "environment.json").read_text())
    assert train(*FAST, "hydra.run.dir='a run'", "resume=true").code == 0
    now = json.loads((folder / "environment.json").read_text())
    (session,) = now.pop("resumed")
    assert now == first
    assert session["command"][-1] == "resume=true"
    assert session.keys() <= {"started", "command"}

    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    result = script("train.py", "--config-path", "a run", "--config-name", "config")
    assert result.code == 0, result.err
    (repeated,) = (tmp_path / "outputs" / "mnist-mlp").iterdir()
    assert_the_same_run(repeated, whole(train, *FAST))
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    assert f"--config-path '{folder}' --config-name config" in result.out


# Repeated -------------------------------------------------------------------------------------------------------------


def test_one_and_two_threads_agree(train, tmp_path):
    before, recipe = torch.get_num_threads(), (*RECIPE, "trainer.precision=32-true", "trainer.max_epochs=1")
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert train(*recipe, f"hydra.run.dir={threads}").code == 0
    finally:
        torch.set_num_threads(before)
    one, two = (torch.load(tmp_path / f / "checkpoints" / "last.ckpt", weights_only=True) for f in ("1", "2"))
    for name, value in one["state_dict"].items():
        assert torch.allclose(value, two["state_dict"][name], rtol=0, atol=1e-5), name
    assert metrics(tmp_path / "1") == pytest.approx(metrics(tmp_path / "2"), abs=1e-4)


@pytest.mark.long
def test_memory_stays_flat_over_two_hundred_epochs(train, monkeypatch, tmp_path):
    measured = []

    def measure(self, trainer, *_):
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
        measured.append(resident)

    monkeypatch.setattr("imgclf.training.callbacks.ProgressBar.on_validation_start", measure)
    result = train("data=digits", "model=mlp", "trainer.max_epochs=200", "hydra.run.dir=run",
                   "trainer.enable_progress_bar=true")  # fmt: skip
    assert result.code == 0, result.err
    for epoch in (1, 10, 20, 50, 100, 150, 200):
        print(f"epoch {epoch}: {measured[epoch - 1]:.0f} MiB")
    assert measured[199] - measured[19] < 40


# Killed ---------------------------------------------------------------------------------------------------------------

# Two classes, whose scores are collected; files, which are decoded into a cache first.
XRAYS = (
    *("data=chest_xray", "data_dir=.", "data.image_size=16", "data.batch_size=12", "data.eval_batch_size=4"),
    *("model=mlp", "model.hidden=[8]", "model.dropout=0.2", "model.threshold=validation", "augmentation=affine"),
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
    "imgclf.models.classifier:Classifier.training_step": 24,
    "imgclf.models.classifier:Classifier.validation_step": 8,
    "torch:save": 5,
    "pathlib:Path.write_bytes": 20,
    "imgclf.data.memmap_cache:read_image": 110,
    "imgclf.training.fit:evaluate": 3,
    "imgclf.figures.style:render": 10,
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
        ("imgclf.figures.style:render", 8),
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

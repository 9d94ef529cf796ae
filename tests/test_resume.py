"""What happens to a run that is stopped, killed or hindered, and what becomes of it when it is resumed."""

import contextlib
import csv
import importlib
import io
import json
import os
import signal

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import write_xrays
from tests.test_train import TIMES, metrics

# Two classes (scores are collected), a schedule by steps, noise, dropout: whatever a checkpoint might forget. A log entry
# every four steps, of the fourteen of an epoch: one is open wherever the run stops.
DIGITS = (
    *("data=noisy_digits", "data.variation=rot-back-rand", "model=mlp", "model.hidden=[16]", "model.dropout=0.2"),
    *("scheduler=onecycle", "augmentation=affine", "data.batch_size=96", "trainer.log_every_n_steps=4"),
    *("data.eval_batch_size=50", "trainer.max_epochs=3", "callbacks.dashboard.every_n_epochs=1"),
)
XRAYS = (
    *("data=chest_xray", "data.image_size=16", "data.batch_size=12", "data.eval_batch_size=4", "model=mlp"),
    *("model.hidden=[8]", "model.threshold=validation", "augmentation=affine", "trainer.log_every_n_steps=4"),
    *("trainer.max_epochs=3", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false"),
)


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


@pytest.mark.parametrize(
    ("number", "place", "count", "options"),
    [
        (signal.SIGTERM, STEP, 1, ()),
        (signal.SIGINT, STEP, 20, ()),
        (signal.SIGTERM, STEP, 19, ("data.num_workers=2",)),
        (signal.SIGTERM, STEP, 14, ()),  # the last of an epoch
        (signal.SIGTERM, VALIDATION, 2, ()),
        (signal.SIGTERM, VALIDATION, 5, ("callbacks=ema", "callbacks.ema.decay=0.9")),
        (signal.SIGINT, STEP, 18, ("callbacks=ema", "callbacks.ema.decay=0.9", "trainer.accumulate_grad_batches=3")),
        (signal.SIGTERM, "imgclf.callbacks:Dashboard.on_train_epoch_end", 2, ()),
        (signal.SIGTERM, "imgclf.callbacks:Dashboard.on_train_epoch_end", 3, ()),  # and nothing left to train
        (signal.SIGTERM, "imgclf.training:evaluate", 2, ()),
        (signal.SIGTERM, "imgclf.figures:mistakes", 1, ()),
    ],
)
def test_a_signal_ends_a_run_within_a_step_and_resumed_it_ends_as_if_nothing_had_been(
    number, place, count, options, train, whole, tmp_path
):
    folder = tmp_path / "run"
    with at_call(place, count, send(number)):
        result = train(*DIGITS, *options, "hydra.run.dir=run")
    assert result.code == 128 + number
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert result.err.splitlines() == [f"{word}: hydra.run.dir={folder} resume=true continues it"]
    assert not (folder / "metrics.json").exists()
    if place == STEP:
        done = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        steps = trained(count, "trainer.accumulate_grad_batches=3" in options)
        assert done == steps
    assert train(*DIGITS, *options, "hydra.run.dir=run", "resume=true").code == 0
    assert_the_same_run(folder, whole(train, *DIGITS, *(o for o in options if "workers" not in o)))


def trained(batches: int, accumulated: bool) -> int:
    """The optimizer's steps once so many batches were seen, and the step they are of was ended."""
    if not accumulated:
        return batches
    epochs, rest = divmod(batches, 14)
    return 5 * epochs + -(-rest // 3)

"""Compares the folders of two runs bit for bit, and disturbs runs at a chosen call."""

import contextlib
import importlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imgclf.core.files import read_csv

TIMES = ("seconds", "images_per_second")
STEP = "imgclf.models.classifier:Classifier.training_step"
VALIDATION = "imgclf.models.classifier:Classifier.validation_step"
EPOCH_END = "imgclf.training.history:History.on_train_epoch_end"
FAST = ("data=mnist", "data.batch_size=50", "model=mlp", "model.hidden=[16]", "trainer.max_epochs=3")  # four steps


def timed(name: str) -> bool:
    return name.rpartition("/")[2] in TIMES


def of_training(name: str) -> bool:
    """Whether it is measured while an epoch is trained: of an epoch that was resumed, only the second part is."""
    return name.startswith(("train/", "step/", "lr"))


def metrics(folder: Path) -> dict[str, float]:
    values = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in values.items() if not timed(name)}


def rows(folder: Path) -> list[dict[str, str]]:
    return [{k: value for k, value in row.items() if not timed(k)} for row in read_csv(folder / "metrics.csv")]


def board(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard's tags with steps and values; of pictures only the steps."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    pictures = {tag: [(event.step, 0.0) for event in events.Images(tag)] for tag in events.Tags()["images"]}
    return {tag: values for tag, values in (scalars | pictures).items() if not timed(tag)}


def without_training(values: dict) -> dict:
    return {name: value for name, value in values.items() if not of_training(name)}


def assert_equal(first, second, name: str = "") -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys(), name
        for key in first:
            assert_equal(first[key], second[key], f"{name}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), name
        for i, pair in enumerate(zip(first, second, strict=True)):
            assert_equal(*pair, f"{name}/{i}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), name
    else:
        assert first == second, name


def assert_the_same_run(folder: Path, whole: Path, within_an_epoch: bool = False) -> None:
    """Bit for bit, but for the time it took; nothing else is left in the folder.

    Args:
        folder: a run that was stopped or killed, and continued.
        whole: the same run, undisturbed.
        within_an_epoch: whether it continued within one epoch, whose training metrics may differ then.
    """
    assert metrics(folder) == metrics(whole)
    for name in ("best.ckpt", "last.ckpt"):
        found, expected = (torch.load(run / "checkpoints" / name, weights_only=True) for run in (folder, whole))
        for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
            assert_equal(found[part], expected[part], f"{name}/{part}")
        assert_equal(found.get("current_model_state", {}), expected.get("current_model_state", {}), name)
    assert len(rows(folder)) == len(rows(whole))
    different = [pair for pair in zip(rows(folder), rows(whole), strict=True) if pair[0] != pair[1]]
    assert len(different) <= within_an_epoch
    for found, expected in different:
        assert without_training(found) == without_training(expected)
    found, expected = board(folder), board(whole)
    if within_an_epoch:
        found, expected = without_training(found), without_training(expected)
    assert found == expected
    found, expected = ({str(file.relative_to(run)) for file in run.rglob("*") if "tfevents" not in file.name}
                       for run in (folder, whole))  # fmt: skip
    assert found == expected


@contextlib.contextmanager
def at_call(place: str, count: int, act) -> Iterator[None]:
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

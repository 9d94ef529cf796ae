"""A run that is stopped by Ctrl-C or a signal ends after its step, and continued it ends as if never stopped."""

import os
import signal

import pytest
import torch

from tests.runs.comparison import EPOCH_END, FAST, STEP, VALIDATION, assert_the_same_run, at_call, send

# Noise, dropout, augmentation and a schedule: whatever a checkpoint might forget. An epoch has nine steps; every fourth
# logs, so that an entry is unfinished wherever the run stops; validation has four batches.
RECIPE = (
    *("data=noisy_mnist", "data.variation=rot-back-rand", "model=mlp", "model.hidden=[16]", "model.dropout=0.2"),
    *("augmentation=affine", "data.batch_size=20", "data.eval_batch_size=5", "trainer.log_every_n_steps=4"),
    *("trainer.max_epochs=3", "callbacks.dashboard.every_n_epochs=3"),
)
CYCLE = ("scheduler=onecycle",)
BY_EPOCH = ("scheduler=cosine", "scheduler.interval=epoch")
AVERAGE = ("callbacks=ema", "callbacks.ema.decay=0.9", "trainer.accumulate_grad_batches=2")
WORKERS = "data.num_workers=2"


@pytest.mark.parametrize(
    ("number", "place", "count", "steps", "options"),
    [
        (signal.SIGTERM, STEP, 9, 9, CYCLE),  # the last of an epoch
        (signal.SIGINT, STEP, 12, 12, (*BY_EPOCH, WORKERS)),
        (signal.SIGINT, STEP, 12, 7, AVERAGE),  # five of the first epoch, its last of one batch; two of the second
        (signal.SIGTERM, VALIDATION, 6, 10, AVERAGE),
        (signal.SIGTERM, "imgclf.training.tensorboard:render", 5, 27, CYCLE),
        *(
            pytest.param(*case, marks=pytest.mark.long)
            for case in (
                (signal.SIGTERM, STEP, 1, 1, CYCLE),
                (signal.SIGTERM, STEP, 9, 9, (*BY_EPOCH, WORKERS)),
                (signal.SIGTERM, EPOCH_END, 3, 27, CYCLE),
                (signal.SIGTERM, VALIDATION, 1, 9, BY_EPOCH),
                (signal.SIGTERM, VALIDATION, 12, 27, (*CYCLE, WORKERS)),
                (signal.SIGTERM, EPOCH_END, 1, 9, (*BY_EPOCH, WORKERS)),
                (signal.SIGTERM, "imgclf.training.finish:evaluate", 2, 27, CYCLE),
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
    train(*RECIPE, *options, "hydra.run.dir=run", "resume=true").ok()
    undisturbed = whole(train, *RECIPE, *(option for option in options if option != WORKERS))
    assert_the_same_run(folder, undisturbed, within_an_epoch=place in (STEP, VALIDATION))


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
    train(*FAST, "hydra.run.dir=run", "resume=true").ok()
    assert_the_same_run(tmp_path / "run", whole(train, *FAST), within_an_epoch=True)


def test_a_system_with_few_signals(train, monkeypatch):
    from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector

    for name in ("SIGHUP", "SIGQUIT", "SIGUSR1"):
        monkeypatch.delattr(signal, name)
    monkeypatch.setattr("imgclf.training.interruption.REQUEUE", None)
    monkeypatch.setattr(_SignalConnector, "register_signal_handlers", lambda self: None)  # registers none on Windows
    train(*FAST, "data.num_workers=1", "hydra.run.dir=run").ok()

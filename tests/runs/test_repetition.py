"""The same run on another number of threads, and a long run's memory."""

import os
from pathlib import Path

import pytest
import torch

from tests.runs.comparison import metrics
from tests.runs.test_interruption import RECIPE


def test_one_and_two_threads_agree(train, tmp_path):
    before, recipe = torch.get_num_threads(), (*RECIPE, "trainer.precision=32-true", "trainer.max_epochs=1")
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            train(*recipe, f"hydra.run.dir={threads}").ok()
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
    train(
        "data=digits", "model=mlp", "trainer.max_epochs=200", "hydra.run.dir=run", "trainer.enable_progress_bar=true"
    ).ok()
    for epoch in (1, 10, 20, 50, 100, 150, 200):
        print(f"epoch {epoch}: {measured[epoch - 1]:.0f} MiB")
    assert measured[199] - measured[19] < 40

"""The launchers that start jobs elsewhere, really run: on this machine."""

import json
import subprocess
import sys

import pytest

from imgclf.core.files import read_csv
from tests.conftest import PROJECT, SMALL


@pytest.fixture(autouse=True)
def _as_a_user(monkeypatch):
    for name in ("PYTHONPATH", "HYDRA_FULL_ERROR", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


RAY = "launcher=ray", "+hydra.launcher.ray.init.num_cpus=2", "+hydra.launcher.ray.init.include_dashboard=false"


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(("launcher=joblib",), id="joblib"),
        pytest.param(("launcher=submitit_local",), id="submitit", marks=pytest.mark.long),
        pytest.param(RAY, id="ray", marks=pytest.mark.long),
    ],
)
def test_jobs_run_side_by_side_and_are_compared(launcher, tiny_data, tmp_path):
    jobs = ("data.val_fraction=0.9999,0.1", "trainer.max_epochs=1", "trainer.accelerator=cpu", f"data_dir={tiny_data}")
    command = [sys.executable, str(PROJECT / "train.py"), "-m", *launcher, *SMALL, *jobs, "hydra.sweep.dir=sweep"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 of 2 jobs failed" in result.stderr, result.stdout + result.stderr
    ok, failed = read_csv(tmp_path / "sweep" / "summary.csv")
    assert (ok["job"], ok["status"], failed["job"], failed["status"]) == ("1", "ok", "0", "failed")
    assert "data.val_fraction=0.9999: it leaves" in failed["error"]
    assert {path.name for path in tmp_path.iterdir()} == {"sweep"}  # no job made a folder of its own elsewhere
    environment = json.loads((tmp_path / "sweep" / "1" / "environment.json").read_text())
    if launcher[0] != "launcher=submitit_local":  # they share the cores
        assert environment["threads"] < environment["cores"] or environment["cores"] == 1


@pytest.mark.long
def test_a_search_runs_trials_side_by_side(tiny_data, tmp_path):
    search = ("-m", "sweep=random", "n_trials=2", "launcher=joblib", "hydra.sweeper.n_jobs=2", "hydra.sweep.dir=sweep")
    given = (*SMALL, "trainer.max_epochs=1", "trainer.accelerator=cpu", f"data_dir={tiny_data}")
    command = [sys.executable, str(PROJECT / "train.py"), *search, *given]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert sorted(row["job"] for row in read_csv(tmp_path / "sweep" / "summary.csv")) == ["0", "1"]

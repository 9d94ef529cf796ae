import json
import sys
import tempfile
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from imgclf.core.files import read_csv
from tests.conftest import SMALL


def test_a_failed_job_does_not_stop_a_sweep_and_is_told_of(train, tmp_path):
    sweep = (*SMALL, "-m", "data.val_fraction=0.9999,0.1,0.2", "hydra.sweep.dir=sweep")
    result = train(*sweep)
    assert result.code == 1
    assert "error: 1 of 3 jobs failed, listed in sweep/summary.csv; sweep/0: data.val_fraction=0.9999" in result.err
    table = read_csv(tmp_path / "sweep" / "summary.csv")
    assert [row["status"] for row in table] == ["ok", "ok", "failed"]
    assert "splits of 200 images empty" in table[2]["error"]
    assert "3 jobs, 1 of them failed" in result.out
    assert (tmp_path / "sweep" / "summary.png").exists()

    assert "sweep holds a sweep already; add resume=true" in train(*sweep).error
    before = (tmp_path / "sweep" / "1" / "metrics.json").read_bytes()
    assert "1 of 3 jobs failed" in train(*sweep, "resume=true").err
    assert (tmp_path / "sweep" / "1" / "metrics.json").read_bytes() == before

    other = train(*sweep, "resume=true", "optimizer.lr=0.1")
    assert "sweep/0 is a job of another sweep" in other.err.replace(str(tmp_path) + "/", "")
    assert json.loads((tmp_path / "sweep" / "1" / "job.json").read_text())["error"] is None


class Terminated(KeyboardInterrupt):
    """What SIGTERM becomes: an interruption with another exit code."""


@pytest.mark.parametrize("stop", [SystemExit(0), SystemExit(3), MemoryError("no memory")], ids=repr)
def test_a_job_that_exits_does_not_end_the_sweep(stop, train, monkeypatch, tmp_path):
    make_trainer, calls = Trainer.__init__, []

    def leave(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 1:
            raise stop
        return make_trainer(*arguments, **options)

    monkeypatch.setattr(Trainer, "__init__", leave)
    result = train(*SMALL, "-m", "seed=1,2", "hydra.sweep.dir=sweep")
    assert result.code == 1
    assert "1 of 2 jobs failed" in result.err
    assert [row["status"] for row in read_csv(tmp_path / "sweep" / "summary.csv")] == ["failed", "ok"]
    assert {"sweep/0: failed", "sweep/1: ok"} <= {": ".join(line.split(": ")[:2]) for line in result.out.splitlines()}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_an_interruption_ends_the_sweep_which_says_what_is_missing(stop, train, monkeypatch, tmp_path):
    make_trainer, calls = Trainer.__init__, []

    def interrupt(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise stop
        return make_trainer(*arguments, **options)

    sweep = (*SMALL, "-m", "seed=1,2,3", "hydra.sweep.dir=sweep")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "__init__", interrupt)
        result = train(*sweep)
    assert result.code == 130  # 143 where it was SIGTERM
    assert [row["status"] for row in read_csv(tmp_path / "sweep" / "summary.csv")] == ["ok", "unfinished", "not run"]
    assert "3 jobs, 1 of them failed, 1 not run" in result.out
    assert {"sweep/0: ok", "sweep/1: unfinished"} <= {*result.out.splitlines()}
    assert "seed=3: not run" in result.out

    with monkeypatch.context() as patch:
        patch.setattr(
            Trainer, "__init__", lambda *given, **options: calls.append(given) or make_trainer(*given, **options)
        )
        result = train(*sweep, "resume=true")
    assert result.code == 0, result.err
    assert len(calls) == 4  # not the first one again
    assert {"sweep/0: skipped, it was finished", "sweep/1: ok", "sweep/2: ok"} <= {*result.out.splitlines()}


def test_a_sweep_that_is_asked_to_exit_fails(train, monkeypatch):
    monkeypatch.setattr("imgclf.sweeps.sweepers.BasicSweeper.sweep", lambda *given: sys.exit(0))
    assert "the sweep was asked to exit with 0" in train(*SMALL, "-m", "seed=1,2", "hydra.sweep.dir=sweep").error


def test_a_pattern_stands_for_the_files_of_a_group(train, tmp_path):
    train(*SMALL, "-m", "optimizer=glob(sg*)", "seed=1,2", "hydra.sweep.dir=sweep").ok()
    assert all("optimizer=sgd" in row["overrides"] for row in read_csv(tmp_path / "sweep" / "summary.csv"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["-m", "objective=test/accuracy", "seed=1,2"], "objective=test/accuracy"),
        (["-m", "objective=val/acuracy", "seed=1,2"], "val/accuracy"),
        (["-m", "optimizer.lr=interval(0.1, 1)"], "intervals are for sweep=random and sweep=bayesian"),
        (["-m", "sweep=none", "seed=1,2"], "sweep=none: choose one of"),
    ],
)
def test_a_bad_grid_is_refused_before_the_first_job(given, said, train, tmp_path):
    result = train(*given, "hydra.sweep.dir=sweep", "hydra.run.dir=run")
    assert said in result.error
    assert not list(tmp_path.glob("sweep/*/*"))


@pytest.mark.long
def test_fifty_jobs_leave_nothing_behind(train, monkeypatch, tmp_path):
    def held():
        """Children and open descriptors of this process."""
        children = [children.read_text().split() for children in Path("/proc/self/task").glob("*/children")]
        return sum(map(len, children)), len(list(Path("/proc/self/fd").iterdir()))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    small = (*SMALL, "data=digits", "data.batch_size=500", "model.hidden=[4]", "evaluate_on=[val]")
    train(*small, "-m", "seed=0,1", "hydra.sweep.dir=first").ok()
    before = held()
    train(*small, "-m", "seed=range(0,50)", "hydra.sweep.dir=sweep").ok()
    assert [row["status"] for row in read_csv(tmp_path / "sweep" / "summary.csv")] == ["ok"] * 50
    assert held() == before
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*")]
    assert not [path for path in files if path.name.startswith(".") or path.suffix in (".lock", ".tmp")]
    print(f"50 jobs: {len(files)} files, {before[1]} descriptors before and after, {before[0]} children")
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("torchinductor_")}  # torch
    assert left == {"first", "sweep"}

import csv
import json
import sys
import tempfile
from pathlib import Path

import optuna
import pytest
from hydra.errors import MissingConfigException
from optuna.trial import TrialState

from imgclf import cli
from imgclf.training import fit
from tests.conftest import SMALL, options

SEARCH = (*SMALL, "-m", "sweep=random", "hydra.sweep.dir=sweep")


def rows(folder):
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def study(folder):
    return optuna.load_study(study_name="study", storage=f"sqlite:///{folder}/study.db")


def test_a_failed_job_does_not_stop_a_sweep_and_is_told_of(train, tmp_path):
    sweep = (*SMALL, "-m", "data.batch_size=100000,50,40", "hydra.sweep.dir=sweep")
    result = train(*sweep)
    assert result.code == 1
    assert "error: 1 of 3 jobs failed, listed in sweep/summary.csv; sweep/0: data.batch_size=100000" in result.err
    table = rows(tmp_path / "sweep")
    assert [row["status"] for row in table] == ["ok", "ok", "failed"]
    assert "is larger than" in table[2]["error"]
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

    train_one, calls = fit.fit, []

    def leave(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise stop
        return train_one(*arguments)

    monkeypatch.setattr(fit, "fit", leave)
    result = train(*SMALL, "-m", "seed=1,2", "hydra.sweep.dir=sweep")
    assert result.code == 1
    assert "1 of 2 jobs failed" in result.err
    assert [row["status"] for row in rows(tmp_path / "sweep")] == ["failed", "ok"]
    assert {"sweep/0: failed", "sweep/1: ok"} <= {": ".join(line.split(": ")[:2]) for line in result.out.splitlines()}


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Terminated])
def test_an_interruption_ends_the_sweep_which_says_what_is_missing(stop, train, monkeypatch, tmp_path):

    train_one, calls = fit.fit, []

    def interrupt(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise stop
        return train_one(*arguments)

    sweep = (*SMALL, "-m", "seed=1,2,3", "hydra.sweep.dir=sweep")
    with monkeypatch.context() as patch:
        patch.setattr(fit, "fit", interrupt)
        result = train(*sweep)
    assert result.code == 130  # 143 where it was SIGTERM
    assert [row["status"] for row in rows(tmp_path / "sweep")] == ["ok", "unfinished", "not run"]
    assert "3 jobs, 1 of them failed, 1 not run" in result.out
    assert {"sweep/0: ok", "sweep/1: unfinished"} <= {*result.out.splitlines()}
    assert "seed=3: not run" in result.out

    with monkeypatch.context() as patch:
        patch.setattr(fit, "fit", lambda *given: calls.append(given) or train_one(*given))
        result = train(*sweep, "resume=true")
    assert result.code == 0, result.err
    assert len(calls) == 4  # not the first one again
    assert {"sweep/0: skipped, it was finished", "sweep/1: ok", "sweep/2: ok"} <= {*result.out.splitlines()}


def test_a_sweep_that_is_asked_to_exit_fails(train, monkeypatch):
    monkeypatch.setattr("imgclf.sweeps.sweepers.BasicSweeper.sweep", lambda *given: sys.exit(0))
    assert "the sweep was asked to exit with 0" in train(*SMALL, "-m", "seed=1,2", "hydra.sweep.dir=sweep").error


@pytest.mark.parametrize("name", ["random", "bayesian"])
def test_an_interrupted_search_ends_with_the_trials_asked_for(name, train, power_cut, monkeypatch, tmp_path):
    from imgclf.training.history import History

    search = (*SEARCH, f"sweep={name}", "n_trials=3", "trainer.max_epochs=2", "model.hidden=[16]")
    start, epochs = History.on_train_epoch_start, []

    def interrupt(self, trainer, module):
        epochs.append(trainer.current_epoch)
        if len(epochs) == 4:  # the second epoch of the second trial
            raise KeyboardInterrupt
        start(self, trainer, module)

    with monkeypatch.context() as patch:
        patch.setattr(History, "on_train_epoch_start", interrupt)
        assert train(*search).code == 130
    assert [row["status"] for row in rows(tmp_path / "sweep")] == ["ok", "unfinished"]
    asked = [trial.params for trial in study(tmp_path / "sweep").trials]

    result = train(*search)
    assert result.code == 0, result.err
    trials = study(tmp_path / "sweep").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert [trial.params for trial in trials][:2] == asked
    assert len({str(trial.params) for trial in trials}) == 3
    assert "continuing" in result.out
    for trial in trials:
        run = tmp_path / "sweep" / str(trial.number)
        assert trial.value == json.loads((run / "metrics.json").read_text())["val/accuracy"]
        assert f"optimizer.lr={trial.params['optimizer.lr']}" in json.loads((run / "job.json").read_text())["overrides"]
    table = rows(tmp_path / "sweep")
    assert sorted(row["job"] for row in table) == ["0", "1", "2"]
    assert float(table[0]["val/accuracy"]) == max(trial.value for trial in trials)

    assert train(*search).code == 0  # is finished
    assert len(study(tmp_path / "sweep").trials) == 3
    refused = train(*search, "data.batch_size=20").error
    assert "sweep holds another study: data.batch_size differ" in refused
    assert "objective" in train(*search, "objective=val/loss").error
    assert len(study(tmp_path / "sweep").trials) == 3


def test_a_failed_trial_is_recorded_and_the_search_goes_on(train, tmp_path):
    space = ("model.hidden=[16]", "model.dropout=0", "optimizer.weight_decay=0", "optimizer.lr=1e-3")
    result = train(*SEARCH, *space, "n_trials=6", "data.batch_size=choice(50,100000)")
    assert result.code == 0, result.err
    states = [trial.state for trial in study(tmp_path / "sweep").trials]
    assert sorted(set(states)) == [TrialState.COMPLETE, TrialState.FAIL]
    assert len(states) == 6
    assert [row["status"] for row in rows(tmp_path / "sweep")].count("failed") == states.count(TrialState.FAIL)


def test_a_search_whose_trials_all_fail_says_so(train, tmp_path):
    result = train(*SEARCH, "n_trials=2", "model.hidden=[16]", "data.batch_size=choice(90000,100000)")
    assert result.code == 1
    assert "error: 2 of 2 jobs failed" in result.err
    assert {row["status"] for row in rows(tmp_path / "sweep")} == {"failed"}


def test_a_search_that_never_came_to_a_job_is_no_study_to_continue(train, tmp_path):
    mistyped = train(*SEARCH, "n_trials=1", "optimizer.lrr=interval(0.1, 1)")
    assert "did you mean optimizer.lr?" in mistyped.error
    result = train(*SEARCH, "n_trials=1", "optimizer.lr=interval(0.001, 0.01)")
    assert result.code == 0, result.err
    assert [trial.number for trial in study(tmp_path / "sweep").trials] == [0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["-m", "objective=test/accuracy", "seed=1,2"],
            "objective=test/accuracy: choose one of val/loss, val/accuracy",
        ),
        (["-m", "objective=val/acuracy", "seed=1,2"], "val/accuracy"),
        (["-m", "sweep=random", "objective=test/f1"], "objective=test/f1: choose one of"),
        (["-m", "sweep=bayesian", "model=torchvision", "model.name=resnet18"], "has nothing to search"),
        (["-m", "sweep=random", "model=mlp,cnn"], "sweep=random searches the space of one model"),
        (["-m", "sweep=random", "n_trials=0"], "n_trials=0"),
        (["sweep=random"], "add -m"),
        (["-m", "optimizer.lr=interval(0.1, 1)"], "intervals are for sweep=random and sweep=bayesian"),
        (["-m", "sweep=none", "seed=1,2"], "Could not find 'sweep/none'"),
        (["-m", "sweep=robustness", "data=mnist"], "data.variation"),
    ],
)
def test_bad_sweeps_are_refused_before_the_first_job(given, said, train, tmp_path):
    result = train(*given, "hydra.sweep.dir=sweep", "hydra.run.dir=run")
    assert said in result.error
    assert not list(tmp_path.glob("sweep/*/*"))


@pytest.mark.parametrize("choice", ["hydra/sweeper/optuna", "hydra/launcher/joblib", "hydra/launcher/ray"])
def test_without_the_extra_the_error_names_the_install_line(choice):
    missing = MissingConfigException(f"Could not find '{choice}'", choice)
    assert cli.one_line(missing) == f"{choice} is not installed: pip install -e '.[sweep]'"


@pytest.mark.long
def test_fifty_jobs_leave_nothing_behind(train, monkeypatch, tmp_path):
    def held():
        """Children and open descriptors of this process."""
        children = [children.read_text().split() for children in Path("/proc/self/task").glob("*/children")]
        return sum(map(len, children)), len(list(Path("/proc/self/fd").iterdir()))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    small = (*SMALL, "data=digits", "data.batch_size=500", "model.hidden=[4]", "evaluate_on=[val]")
    assert train(*small, "-m", "seed=0,1", "hydra.sweep.dir=first").code == 0
    before = held()
    result = train(*small, "-m", "seed=range(0,50)", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    assert [row["status"] for row in rows(tmp_path / "sweep")] == ["ok"] * 50
    assert held() == before
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*")]
    assert not [path for path in files if path.name.startswith(".") or path.suffix in (".lock", ".tmp")]
    print(f"50 jobs: {len(files)} files, {before[1]} descriptors before and after, {before[0]} children")
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("torchinductor_")}  # torch
    assert left == {"first", "sweep"}


def test_every_network_but_the_zoo_has_a_search_space():
    assert options("sweep/space") == [name for name in options("model") if name != "torchvision"]


@pytest.mark.parametrize("model", options("sweep/space"))
def test_every_search_space_names_options_that_exist(model, train, tmp_path):
    given = ("data=mnist", f"model={model}", "data.batch_size=50", "n_trials=1")
    result = train("-m", "sweep=random", *given, "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err


def test_robustness_evaluates_every_network_on_every_variation(train, tmp_path):
    given = (*SMALL, "data=noisy_mnist", "data.variation=basic,back-rand", "seed=1,2", "trainer.max_epochs=3")
    result = train("-m", "sweep=robustness", *given, "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    with (tmp_path / "sweep" / "robustness.csv").open() as file:
        table = {row.pop("trained on"): row for row in csv.DictReader(file)}
    assert list(table) == ["basic", "back-rand"]
    assert all(list(row) == ["basic", "back-rand"] for row in table.values())
    for i, variation in enumerate(table):
        own = [json.loads((tmp_path / "sweep" / str(2 * i + k) / "metrics.json").read_text()) for k in range(2)]
        mean = sum(metrics["test/accuracy"] for metrics in own) / 2
        assert float(table[variation][variation]) == pytest.approx(mean)
    assert table["basic"]["basic"] != table["basic"]["back-rand"]
    assert (tmp_path / "sweep" / "robustness.png").exists()

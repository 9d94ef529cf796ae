import json

import optuna
import pytest
from hydra.errors import MissingConfigException
from optuna.trial import TrialState

from imgclf import cli
from imgclf.core.files import read_csv
from tests.conftest import SMALL, options

SEARCH = (*SMALL, "-m", "sweep=random", "hydra.sweep.dir=sweep")


def study(folder):
    return optuna.load_study(study_name="study", storage=f"sqlite:///{folder}/study.db")


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
    assert [row["status"] for row in read_csv(tmp_path / "sweep" / "summary.csv")] == ["ok", "unfinished"]
    asked = [trial.params for trial in study(tmp_path / "sweep").trials]

    result = train(*search).ok()
    trials = study(tmp_path / "sweep").trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 3
    assert [trial.params for trial in trials][:2] == asked
    assert len({str(trial.params) for trial in trials}) == 3
    assert ", continued" in result.out
    for trial in trials:
        run = tmp_path / "sweep" / str(trial.number)
        assert trial.value == json.loads((run / "metrics.json").read_text())["val/accuracy"]
        assert f"optimizer.lr={trial.params['optimizer.lr']}" in json.loads((run / "job.json").read_text())["overrides"]
    table = read_csv(tmp_path / "sweep" / "summary.csv")
    assert sorted(row["job"] for row in table) == ["0", "1", "2"]
    assert float(table[0]["val/accuracy"]) == max(trial.value for trial in trials)

    train(*search).ok()
    assert len(study(tmp_path / "sweep").trials) == 3
    refused = train(*search, "data.batch_size=20").error
    assert "sweep holds another study: data.batch_size differ" in refused
    assert "objective" in train(*search, "objective=val/loss").error
    assert len(study(tmp_path / "sweep").trials) == 3


def test_a_failed_trial_is_recorded_and_the_search_goes_on(train, tmp_path):
    space = ("model.hidden=[16]", "model.dropout=0", "optimizer.weight_decay=0", "optimizer.lr=1e-3")
    train(*SEARCH, *space, "n_trials=6", "data.val_fraction=choice(0.1,0.9999)").ok()
    states = [trial.state for trial in study(tmp_path / "sweep").trials]
    assert sorted(set(states)) == [TrialState.COMPLETE, TrialState.FAIL]
    assert len(states) == 6
    assert [row["status"] for row in read_csv(tmp_path / "sweep" / "summary.csv")].count("failed") == states.count(
        TrialState.FAIL
    )


def test_a_search_whose_trials_all_fail_says_so(train, tmp_path):
    result = train(*SEARCH, "n_trials=2", "model.hidden=[16]", "data.val_fraction=choice(0.9998,0.9999)")
    assert result.code == 1
    assert "error: 2 of 2 jobs failed" in result.err
    assert {row["status"] for row in read_csv(tmp_path / "sweep" / "summary.csv")} == {"failed"}


def test_a_search_that_never_came_to_a_job_is_no_study_to_continue(train, tmp_path):
    mistyped = train(*SEARCH, "n_trials=1", "optimizer.lrr=interval(0.1, 1)")
    assert "did you mean optimizer.lr?" in mistyped.error
    train(*SEARCH, "n_trials=1", "optimizer.lr=interval(0.001, 0.01)").ok()
    assert [trial.number for trial in study(tmp_path / "sweep").trials] == [0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["-m", "sweep=random", "objective=test/f1"], "objective=test/f1"),
        (["-m", "sweep=bayesian", "model=torchvision", "model.name=resnet18"], "has nothing to search"),
        (["-m", "sweep=random", "model=mlp,cnn"], "sweep=random searches the space of one model"),
        (["-m", "sweep=random", "n_trials=0"], "n_trials=0"),
        (["sweep=random"], "add -m"),
    ],
)
def test_a_bad_search_is_refused_before_the_first_job(given, said, train, tmp_path):
    result = train(*given, "hydra.sweep.dir=sweep", "hydra.run.dir=run")
    assert said in result.error
    assert not list(tmp_path.glob("sweep/*/*"))


@pytest.mark.parametrize("choice", ["hydra/sweeper/optuna", "hydra/launcher/joblib", "hydra/launcher/ray"])
def test_without_the_extra_the_error_names_the_install_line(choice):
    missing = MissingConfigException(f"Could not find '{choice}'", choice)
    assert cli.one_line(missing) == f"{choice} is not installed: pip install -e '.[sweep]'"


def test_every_network_but_the_zoo_has_a_search_space():
    assert options("sweep/space") == [name for name in options("model") if name not in ("timm", "torchvision")]


@pytest.mark.parametrize("model", options("sweep/space"))
def test_every_search_space_names_options_that_exist(model, train, tmp_path):
    given = ("data=mnist", f"model={model}", "data.batch_size=50", "n_trials=1")
    train("-m", "sweep=random", *given, "hydra.sweep.dir=sweep").ok()

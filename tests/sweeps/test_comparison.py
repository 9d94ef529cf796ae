import json
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from imgclf.core.files import read_csv
from imgclf.sweeps.comparison import checked_and_compared
from tests.conftest import PROJECT


@pytest.fixture
def run_sweep(tmp_path):
    """Runs a sweep whose jobs leave the given job.json, and which then raises the given failure."""

    def run(*jobs, failure=None, check=dict, **options):
        config = OmegaConf.create(
            {"hydra": {"sweep": {"dir": str(tmp_path)}}, "objective": "val/accuracy", "resume": True}
        )
        with checked_and_compared(config, check, **options):
            for number, content in enumerate(jobs, len(list(tmp_path.glob("*/job.json")))):
                folder = tmp_path / str(number)
                folder.mkdir()
                content = {"overrides": [f"model=m{number}"], "error": None, **content}
                (folder / "job.json").write_text(json.dumps(content))
                if content["error"] is None:
                    (folder / "metrics.json").write_text(json.dumps({"val/accuracy": 0.5, "train/seconds": 1.0}))
            if failure is not None:
                raise failure

    return run


OK = {}
FAILED = {"error": "data.batch_size=9: too large", "message": "batch_size=9: too large"}


def test_the_options_are_checked_without_those_of_hydra(run_sweep):
    checked = []
    run_sweep(check=checked.append)
    assert checked == [{"objective": "val/accuracy", "resume": True}]


def test_a_bad_option_ends_the_sweep_before_its_first_job(run_sweep, tmp_path):
    def refuse(options):
        raise ValueError(f"objective={options['objective']}: bad")

    with pytest.raises(ValueError, match="objective=val/accuracy: bad"):
        run_sweep(OK, check=refuse)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "raised"),
    [(FAILED, "batch_size=9: too large"), ({"error": "no room"}, "no room")],  # a job.json of an older version
    ids=["message", "error"],
)
def test_a_failure_of_a_job_is_reported_as_the_job_s(content, raised, run_sweep):
    with pytest.raises(ValueError, match=r"1 of 2 jobs failed, .*/1: ") as failure:
        run_sweep(OK, content, failure=RuntimeError(raised))
    assert content["error"] in str(failure.value)


def test_a_failure_of_the_sweep_itself_is_raised_as_it_is(run_sweep, tmp_path):
    with pytest.raises(RuntimeError, match="no launcher"):
        run_sweep(OK, FAILED, failure=RuntimeError("no launcher"))
    assert [row["status"] for row in read_csv(tmp_path / "summary.csv")] == ["ok", "failed"]


def test_failed_jobs_may_belong_to_the_result_but_not_all_of_them(run_sweep, tmp_path):
    with pytest.raises(ValueError, match="1 of 1 jobs failed"):
        run_sweep(FAILED, failures_allowed=True)
    run_sweep(OK, failures_allowed=True)
    assert [row["status"] for row in read_csv(tmp_path / "summary.csv")] == ["ok", "failed"]


def test_the_summary_names_the_jobs_that_an_interruption_left_out(run_sweep, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_sweep(OK, failure=KeyboardInterrupt(), planned=[["model=m0"], ["model=m1"], ["model=m2"]])
    statuses = [(row["model"], row["status"]) for row in read_csv(tmp_path / "summary.csv")]
    assert statuses == [("m0", "ok"), ("m1", "not run"), ("m2", "not run")]


def test_the_sweepers_are_imported_without_torch_and_matplotlib():
    heavy = "sorted({'torch', 'lightning', 'matplotlib', 'sklearn', 'optuna'} & set(sys.modules))"
    code = f"import sys, imgclf.sweeps.sweepers; print({heavy})"
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr

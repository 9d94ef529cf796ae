import json
import math
import statistics

import pytest

from imgclf.core.files import read_csv
from imgclf.sweeps.jobs import rank_configurations, read_jobs, swept_options
from imgclf.sweeps.summary import plot_summary, summarise


@pytest.fixture
def sweep(tmp_path):
    """Writes a folder for each job: its overrides, its objective by epoch (none if it failed), and more metrics."""

    def write(*jobs):
        for number, (overrides, values, more) in enumerate(jobs):
            run = tmp_path / str(number)
            run.mkdir()
            error = None if values else "diverged"
            (run / "job.json").write_text(json.dumps({"overrides": overrides.split(), "error": error}))
            if values:
                metrics = {"val/accuracy": values[-1], "train/seconds": 1.5, **more}
                (run / "metrics.json").write_text(json.dumps(metrics))
                rows = "\n".join(map(str, values))
                (run / "metrics.csv").write_text(f"val/accuracy\n{rows}\n")
        return tmp_path

    return write


def test_seeds_are_aggregated_and_a_validation_metric_ranks(sweep, capfd):
    folder = sweep(
        ("model=mlp seed=1", [0.5, 0.6], {"test/accuracy": 0.99}),
        ("model=mlp seed=2", [0.5, 0.8], {"test/accuracy": 0.98}),
        ("model=cnn seed=1", [0.7, 0.9], {"test/accuracy": 0.10}),
        ("model=cnn seed=2", [0.7, 0.94], {"test/accuracy": 0.20}),
        ("model=cnn seed=3", [], {}),
    )
    jobs = read_jobs(folder)
    assert swept_options(jobs) == ["model", "seed"]
    best, other = summarise(folder, jobs, "val/accuracy", "max")
    assert best.settings == {"model": "cnn"}
    assert best.mean == pytest.approx(0.92)
    assert best.deviation == pytest.approx(statistics.stdev([0.9, 0.94]))
    assert other.values == [0.6, 0.8]
    table = read_csv(folder / "summary.csv")
    assert [row["job"] for row in table] == ["2", "3", "4", "0", "1"]
    assert [row["rank"] for row in table] == ["1", "1", "1", "2", "2"]
    assert {row["n"] for row in table} == {"2"}
    assert float(table[0]["val/accuracy mean"]) == pytest.approx(0.92)
    assert float(table[3]["val/accuracy deviation"]) == pytest.approx(statistics.stdev([0.6, 0.8]))
    assert (table[2]["status"], table[2]["error"], table[2]["val/accuracy"]) == ("failed", "diverged", "")
    assert table[0]["overrides"] == "model=cnn seed=1"
    assert table[0]["train/seconds"] == "1.5"
    printed = capfd.readouterr().out
    assert "0.9200 ± 0.0283" in printed
    assert "4: failed: diverged" in printed.replace("\n", "")
    assert (folder / "summary.png").exists()


def test_lower_is_better_for_a_loss_and_groups_without_a_result_come_last(sweep):
    folder = sweep(("model=a", [], {}), ("model=b", [0.5], {"val/loss": 2.0}), ("model=c", [0.1], {"val/loss": 1.0}))
    groups = rank_configurations(read_jobs(folder), "val/loss", "min")
    assert [group.settings["model"] for group in groups] == ["c", "b", "a"]
    assert math.isnan(groups[2].mean)
    assert math.isnan(groups[0].deviation)


def test_jobs_come_in_the_order_of_their_numbers(sweep):
    folder = sweep(*[(f"model={i}", [0.5], {}) for i in range(12)])
    assert [job.overrides["model"] for job in read_jobs(folder)] == [str(i) for i in range(12)]
    assert read_jobs(folder / "none") == []


def test_a_job_that_was_killed_is_unfinished(sweep):
    folder = sweep(("model=a", [0.5], {}))
    (folder / "0" / "metrics.json").unlink()
    (job,) = read_jobs(folder)
    assert (job.status, job.metrics) == ("unfinished", {})
    assert summarise(folder, [job], "val/accuracy", "max")[0].values == []
    assert not (folder / "summary.png").exists()  # there is nothing to draw


def test_an_undefined_metric_counts_as_no_result(sweep):
    folder = sweep(("model=a", [0.5], {"val/auroc": None}), ("model=b", [0.5], {"val/auroc": 0.7}))
    jobs = read_jobs(folder)
    ranking = rank_configurations(jobs, "val/auroc", "max")
    assert [(tried.settings["model"], tried.values) for tried in ranking] == [("b", [0.7]), ("a", [])]
    summarise(folder, jobs, "val/accuracy", "max")
    assert [row["val/auroc"] for row in read_csv(folder / "summary.csv")] == ["", "0.7"]


@pytest.mark.parametrize(
    ("jobs", "drawn"),
    [
        (["a=1 seed=1", "a=1 seed=2"], "plot_metric_over_epochs"),
        (["a=1 b=1 seed=1", "a=2 b=1 seed=2"], "plot_metric_over_epochs"),
        (["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"], "plot_metric_grid"),
        (["a=1 b=x", "a=2 b=y", "a=3 b=x"], "plot_parallel_coordinates"),  # as a search leaves it: no full grid
        (["a=1", "a=2"], "plot_parallel_coordinates"),
        (["a=1 b=1 c=1", "a=1 b=2 c=1", "a=1 b=1 c=2"], "plot_parallel_coordinates"),
    ],
)
def test_what_was_swept_chooses_the_picture(jobs, drawn, sweep, monkeypatch):
    asked = []
    for name in ("plot_metric_over_epochs", "plot_metric_grid", "plot_parallel_coordinates"):
        monkeypatch.setattr(
            f"imgclf.sweeps.summary.{name}", lambda *given, name=name, **titles: asked.append((name, given))
        )
    folder = sweep(*[(overrides, [0.1, 0.2 + i / 10], {}) for i, overrides in enumerate(jobs)])
    found = read_jobs(folder)
    plot_summary(found, rank_configurations(found, "val/accuracy", "max"), "val/accuracy", "max")
    assert [name for name, _ in asked] == [drawn]
    if drawn == "plot_metric_grid":
        values, down, across, *_ = asked[0][1]
        assert (down, across) == (["1", "2"], ["x", "y"])
        assert [cell for row in values for cell in row] == pytest.approx([0.2, 0.3, 0.4, 0.5])

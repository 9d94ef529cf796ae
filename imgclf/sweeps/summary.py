"""Compares the jobs of a sweep in summary.csv, in a table on the console, and in a figure, summary.png."""

import math
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from matplotlib.figure import Figure

from imgclf.core.console import print_line, print_table
from imgclf.core.files import read_csv, write_csv
from imgclf.figures.learning_curves import plot_metric_over_epochs
from imgclf.figures.style import write_figure
from imgclf.figures.sweeps import plot_metric_grid, plot_parallel_coordinates
from imgclf.sweeps.html_report import write_sweep_report
from imgclf.sweeps.jobs import (
    Configuration,
    Job,
    as_number,
    compared_options,
    job_order,
    rank_configurations,
    swept_options,
)

MAX_ROWS = 20  # configurations in the console's table; summary.csv has all


def summarise(
    folder: Path, jobs: Sequence[Job], objective: str, mode: Literal["min", "max"], skipped: Collection[Path] = ()
) -> list[Configuration]:
    """Writes summary.csv and summary.png into a sweep folder, and prints the ranking and each job.

    The objective is the validation metric that ranks the configurations; test metrics are shown, but rank nothing.
    ``skipped`` has the run folders of jobs that an earlier start of the sweep had finished.

    Returns:
        The configurations, the best first. Without any result there is no summary.png.
    """
    names, ranking = swept_options(jobs), rank_configurations(jobs, objective, mode)
    rows = [row for rank, tried in enumerate(ranking, 1) for row in _rows(rank, tried, names, objective)]
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "error"]
    file = write_csv(folder / "summary.csv", [*columns, "error"], rows)
    _print_ranking(jobs, ranking, objective)
    for job in jobs:
        given = " ".join(f"{name}={job.overrides.get(name)}" for name in names)
        status = "skipped, it was finished" if job.path in skipped else job.status
        print_line(f"{job.path if job.path.name else given}: {status}{': ' if job.error else ''}{job.error}")
    print_line(f"  summary:  {file}")
    print_line(f"dashboard:  tensorboard --logdir {shlex.quote(str(folder))}")
    if figure := plot_summary(jobs, ranking, objective, mode):
        write_figure(folder / "summary.png", figure)
    print_line(f"   report:  {write_sweep_report(folder, objective)}\n")
    return ranking


def _rows(rank: int, tried: Configuration, names: Sequence[str], objective: str) -> list[dict[str, object]]:
    """The rows of summary.csv for the jobs of a configuration."""
    return [
        {
            "rank": rank if tried.values else "",
            "job": job.path.name,
            "status": job.status,
            "overrides": " ".join(f"{name}={value}" for name, value in job.overrides.items()),
            **{name: job.overrides.get(name, "") for name in names},
            "n": len(tried.values),
            f"{objective} mean": tried.mean if tried.values else "",
            f"{objective} deviation": tried.deviation if len(tried.values) > 1 else "",
            **job.metrics,
            "error": job.error,
        }
        for job in tried.jobs
    ]


def _print_ranking(jobs: Sequence[Job], ranking: Sequence[Configuration], objective: str) -> None:
    not_run = sum(job.status == "not run" for job in jobs)
    failed = sum(job.status != "ok" for job in jobs) - not_run
    title = f"{len(jobs)} jobs"
    title += f", {failed} of them failed" if failed else ""
    title += f", {not_run} not run" if not_run else ""
    rows = []
    for tried in [tried for tried in ranking if tried.values][:MAX_ROWS]:
        finished = [job.metrics for job in tried.jobs if job.metrics]
        accuracies = [metrics["test/accuracy"] for metrics in finished if "test/accuracy" in metrics]
        seconds = fmean(metrics["train/seconds"] for metrics in finished)
        results = _mean_and_deviation(tried.values), _mean_and_deviation(accuracies), f"{seconds:.1f}"
        rows.append((tried.label, str(len(tried.values)), *results))
    columns = ["configuration", "n", objective, "test/accuracy", "seconds"]
    print_table(f"{title}; the best by {objective} comes first", columns, rows)


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{fmean(values):.4f}{deviation}" if values else ""


def plot_summary(
    jobs: Sequence[Job], ranking: Sequence[Configuration], objective: str, mode: Literal["min", "max"]
) -> Figure | None:
    """Draws the figure that suits what was swept; None if no configuration has a result.

    A configuration with several runs becomes a curve over epochs with a band of one standard deviation. A full grid of
    two options becomes a heat map. Everything else becomes parallel coordinates.
    """
    ranking, names = [tried for tried in ranking if tried.values], compared_options(jobs)
    if not ranking:
        return None
    if not names or names != swept_options(jobs):
        finished = {tried.label: [job.path for job in tried.jobs if job.metrics] for tried in ranking}
        curves = {label: [_read_curve(run, objective) for run in runs] for label, runs in finished.items()}
        return plot_metric_over_epochs(curves, objective)
    means = {tuple(tried.settings.values()): tried.mean for tried in ranking}
    axes = [_axis_values(name, ranking) for name in names]
    if len(names) == 2 and len(ranking) == math.prod(map(len, axes)):
        rows, columns = axes
        grid = [[means[row, column] for column in columns] for row in rows]
        return plot_metric_grid(grid, rows, columns, row_title=names[0], column_title=names[1], metric=objective)
    return plot_parallel_coordinates([tried.settings for tried in ranking], list(means.values()), objective, mode)


def _axis_values(name: str, ranking: Sequence[Configuration]) -> list[str]:
    """The values of an option: numbers in ascending order, others in the order of the jobs."""
    jobs = sorted((job for tried in ranking for job in tried.jobs), key=job_order)
    values = list(dict.fromkeys(job.overrides.get(name, "") for job in jobs))
    return values if any(as_number(value) is None for value in values) else sorted(values, key=float)


def _read_curve(run: Path, objective: str) -> list[float]:
    return [float(row[objective] or "nan") for row in read_csv(run / "metrics.csv")]

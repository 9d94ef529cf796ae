"""Compares the jobs of a sweep in summary.csv, in a table on the console, and in a figure, summary.png."""

import csv
import math
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from matplotlib.figure import Figure
from rich import get_console
from rich.markup import escape
from rich.table import Table

from imgclf.core.files import write_csv, write_file
from imgclf.figures.learning_curves import plot_metric_over_epochs
from imgclf.figures.style import encode_png, render
from imgclf.figures.sweeps import plot_metric_grid, plot_parallel_coordinates
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
    folder: str | Path,
    jobs: Sequence[Job],
    objective: str,
    mode: Literal["min", "max"],
    skipped: Collection[Path] = (),
) -> list[Configuration]:
    """Writes summary.csv and summary.png into a sweep folder, and prints the ranking and each job.

    Args:
        folder: the sweep folder.
        jobs: all jobs of the sweep.
        objective: the validation metric that ranks the configurations. Test metrics are shown, but rank nothing.
        mode: whether a low or a high objective is better.
        skipped: the run folders of jobs that an earlier start of the sweep had finished.

    Returns:
        The configurations, the best first. Without any result there is no summary.png.
    """
    folder, names = Path(folder), swept_options(jobs)
    ranking = rank_configurations(jobs, objective, mode)
    rows = [
        row for rank, configuration in enumerate(ranking, 1) for row in _rows(rank, configuration, names, objective)
    ]
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "error"]
    write_csv(folder / "summary.csv", [*columns, "error"], rows)
    _print_ranking(jobs, ranking, objective)
    _print_jobs(jobs, names, skipped)
    print_line(f"  summary:  {folder / 'summary.csv'}")
    print_line(f"dashboard:  tensorboard --logdir {shlex.quote(str(folder))}\n")
    figure = plot_summary(jobs, ranking, objective, mode)
    if figure is not None:
        write_file(folder / "summary.png", encode_png(render(figure)))
    return ranking


def _rows(rank: int, configuration: Configuration, names: Sequence[str], objective: str) -> list[dict[str, object]]:
    """The rows of summary.csv for the jobs of a configuration."""
    mean, deviation = configuration.mean, configuration.deviation
    return [
        {
            "rank": rank if configuration.values else "",
            "job": job.path.name,
            "status": job.status,
            "overrides": " ".join(f"{name}={value}" for name, value in job.overrides.items()),
            **{name: job.overrides.get(name, "") for name in names},
            "n": len(configuration.values),
            f"{objective} mean": "" if math.isnan(mean) else mean,
            f"{objective} deviation": "" if math.isnan(deviation) else deviation,
            **job.metrics,
            "error": job.error,
        }
        for job in configuration.jobs
    ]


def _print_ranking(jobs: Sequence[Job], ranking: Sequence[Configuration], objective: str) -> None:
    failed = sum(job.status in ("failed", "unfinished") for job in jobs)
    not_run = sum(job.status == "not run" for job in jobs)
    title = f"{len(jobs)} jobs"
    title += f", {failed} of them failed" if failed else ""
    title += f", {not_run} not run" if not_run else ""
    table = Table(title=f"{title}, by {objective}")
    table.add_column("rank", justify="right")
    table.add_column("configuration", overflow="fold")
    for name in ("n", objective, "test/accuracy", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    with_result = [configuration for configuration in ranking if configuration.values]
    for rank, configuration in enumerate(with_result[:MAX_ROWS], 1):
        finished = [job.metrics for job in configuration.jobs if job.metrics]
        accuracies = [metrics["test/accuracy"] for metrics in finished if "test/accuracy" in metrics]
        seconds = fmean(metrics["train/seconds"] for metrics in finished)
        table.add_row(
            str(rank),
            escape(configuration.label),
            str(len(configuration.values)),
            _mean_and_deviation(configuration.values),
            _mean_and_deviation(accuracies),
            f"{seconds:.1f}",
        )
    get_console().print(table)


def _mean_and_deviation(values: Sequence[float]) -> str:
    deviation = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return f"{fmean(values):.4f}{deviation}" if values else ""


def _print_jobs(jobs: Sequence[Job], names: Sequence[str], skipped: Collection[Path]) -> None:
    for job in jobs:
        given = " ".join(f"{name}={job.overrides.get(name)}" for name in names)
        status = "skipped, it was finished" if job.path in skipped else job.status
        print_line(f"{job.path if job.path.name else given}: {status}{': ' if job.error else ''}{job.error}")


def print_line(text: str) -> None:
    """Prints the text on the console as it is: without colours, markup or line breaks."""
    get_console().print(text, highlight=False, markup=False, soft_wrap=True)


def plot_summary(
    jobs: Sequence[Job], ranking: Sequence[Configuration], objective: str, mode: Literal["min", "max"]
) -> Figure | None:
    """Draws the figure that suits what was swept.

    A configuration with several runs becomes a curve over epochs with a band of one standard deviation. A full grid of
    two options becomes a heat map. Everything else becomes parallel coordinates.

    Returns:
        The figure, None if no configuration has a result.
    """
    ranking = [configuration for configuration in ranking if configuration.values]
    names = compared_options(jobs)
    if not ranking:
        return None
    if not names or names != swept_options(jobs):
        curves = {
            configuration.label: [_read_curve(job.path, objective) for job in configuration.jobs if job.metrics]
            for configuration in ranking
        }
        return plot_metric_over_epochs(curves, objective)
    axes = {name: _axis_values(name, ranking) for name in names}
    if len(names) == 2 and len(ranking) == math.prod(map(len, axes.values())):
        row_name, column_name = names
        means = {tuple(configuration.settings.values()): configuration.mean for configuration in ranking}
        return plot_metric_grid(
            [[means[row, column] for column in axes[column_name]] for row in axes[row_name]],
            axes[row_name],
            axes[column_name],
            row_title=row_name,
            column_title=column_name,
            metric=objective,
        )
    settings, means = [tried.settings for tried in ranking], [tried.mean for tried in ranking]
    return plot_parallel_coordinates(settings, means, objective, mode)


def _axis_values(name: str, ranking: Sequence[Configuration]) -> list[str]:
    """The values of an option: numbers in ascending order, others in the order of the jobs."""
    jobs = sorted((job for configuration in ranking for job in configuration.jobs), key=job_order)
    values = list(dict.fromkeys(job.overrides.get(name, "") for job in jobs))
    return values if any(as_number(value) is None for value in values) else sorted(values, key=float)


def _read_curve(run: Path, objective: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[objective] or "nan") for row in csv.DictReader(file)]

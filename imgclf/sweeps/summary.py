"""Compares the jobs of a sweep folder: a row a job, seeds aggregated, ranked by a validation metric, one picture."""

import csv
import logging
import math
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich import get_console
from rich.markup import escape
from rich.table import Table

from imgclf.core.files import write_csv, write_file
from imgclf.figures.learning_curves import plot_metric_over_epochs
from imgclf.figures.style import encode_png, render
from imgclf.figures.sweeps import plot_grid, plot_parallel_coordinates
from imgclf.sweeps.jobs import Group, Job, _number, as_number, rank_jobs, swept_options

log = logging.getLogger(__name__)

SHOWN = 20  # configurations in the console's table; summary.csv has all


def summarise(
    folder: str | Path, jobs: Sequence[Job], objective: str, mode: str, skipped: Collection[Path] = ()
) -> list[Group]:
    """Writes summary.csv and summary.png into the sweep folder, prints the ranking and every job, returns the ranking.

    Only ``objective``, a validation metric, ranks; test metrics are shown beside it. ``skipped`` are the run folders of
    jobs that an earlier start of the sweep had finished.
    """
    groups = rank_jobs(jobs, objective, mode)
    _write_summary(Path(folder), groups, swept_options(jobs), objective)
    _print(Path(folder), groups, jobs, objective, skipped)
    figure = picture(groups, swept_options(jobs), objective, mode)
    if figure is not None:
        write_file(Path(folder) / "summary.png", encode_png(render(figure)))
    return groups


def _write_summary(folder: Path, groups: Sequence[Group], names: Sequence[str], objective: str) -> None:
    rows = []
    for rank, group in enumerate(groups, 1):
        aggregated = {
            "n": len(group.values),
            f"{objective} mean": group.mean,
            f"{objective} deviation": group.deviation,
        }
        for job in group.jobs:
            rows.append(
                {
                    "rank": rank if group.values else "",
                    "job": job.path.name,
                    "status": job.status,
                    "overrides": " ".join(f"{name}={value}" for name, value in job.overrides.items()),
                    **{name: job.overrides.get(name, "") for name in names},
                    **{name: "" if value != value else value for name, value in aggregated.items()},
                    **job.metrics,
                    "error": job.error,
                }
            )
    columns = [name for name in dict.fromkeys(name for row in rows for name in row) if name != "error"]
    write_csv(folder / "summary.csv", [*columns, "error"], rows)


def _print(
    folder: Path, groups: Sequence[Group], jobs: Sequence[Job], objective: str, skipped: Collection[Path]
) -> None:
    failed = sum(job.status in ("failed", "unfinished") for job in jobs)
    missing = sum(job.status == "not run" for job in jobs)
    counts = f"{f', {failed} of them failed' if failed else ''}{f', {missing} not run' if missing else ''}"
    table = Table(title=f"{len(jobs)} jobs{counts}, by {objective}" if counts else f"{len(jobs)} jobs by {objective}")
    table.add_column("rank", justify="right")
    table.add_column("configuration", overflow="fold")
    for name in ("n", objective, "test/accuracy", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for rank, group in enumerate([group for group in groups if group.values][:SHOWN], 1):
        finished = [job.metrics for job in group.jobs if job.metrics]
        measured = [_spread([m[name] for m in finished if name in m]) for name in (objective, "test/accuracy")]
        seconds = fmean(metrics["train/seconds"] for metrics in finished)
        table.add_row(str(rank), escape(group.label), str(len(group.values)), *measured, f"{seconds:.1f}")
    console = get_console()
    console.print(table)
    for job in jobs:
        name = (
            job.path if job.path.name else " ".join(f"{name}={job.overrides.get(name)}" for name in swept_options(jobs))
        )
        status = "skipped, it was finished" if job.path in skipped else job.status
        told = f"{name}: {status}{': ' if job.error else ''}{job.error}"
        console.print(told, highlight=False, markup=False, soft_wrap=True)
    where = {"summary": f"{folder / 'summary.csv'}", "dashboard": f"tensorboard --logdir {shlex.quote(str(folder))}\n"}
    for name, text in where.items():
        console.print(f"{name:>9}:  {text}", highlight=False, markup=False, soft_wrap=True)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def picture(groups: Sequence[Group], names: Sequence[str], objective: str, mode: str) -> Any:
    """The figure of a summary, None if no job is ok: lines over epochs with deviation bands if the seed is swept, a
    heat map if a full grid of two options is, else parallel coordinates."""

    groups = [group for group in groups if group.values]
    if not groups:
        return None
    if "seed" in names or not names:
        curves = {group.label: [_curve(job.path, objective) for job in group.jobs if job.metrics] for group in groups}
        return plot_metric_over_epochs(curves, objective)
    jobs = sorted((job for group in groups for job in group.jobs), key=_number)
    axes = {name: list(dict.fromkeys(job.overrides.get(name, "") for job in jobs)) for name in names}
    for name, values in axes.items():
        if all(as_number(value) is not None for value in values):
            axes[name] = sorted(values, key=float)
    if len(names) == 2 and len(groups) == math.prod(map(len, axes.values())):
        down, across = names
        cells = {tuple(group.settings.values()): group.mean for group in groups}
        grid = [[cells[row, column] for column in axes[across]] for row in axes[down]]
        return plot_grid(grid, axes[down], axes[across], down, across, objective)
    return plot_parallel_coordinates([group.settings for group in groups], [g.mean for g in groups], objective, mode)


def _curve(run: Path, objective: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[objective]) for row in csv.DictReader(file)]

"""Compares the jobs of a sweep folder: a row a job, seeds aggregated, ranked by a validation metric, one picture."""

import csv
import json
import logging
import math
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich import get_console
from rich.markup import escape
from rich.table import Table

from imgclf.run_folder import JOB, RunFolder, write, write_csv

log = logging.getLogger(__name__)

SHOWN = 20  # configurations in the console's table; summary.csv has all


@dataclass(frozen=True)
class Job:
    """A job of a sweep, as its run folder tells.

    Attributes:
        path: the run folder.
        overrides: option to value, as given.
        status: "ok"; "failed"; "unfinished", when it was killed or still runs; or "not run".
        error: what it failed of, one line.
        metrics: metrics.json; empty unless ok.
    """

    path: Path
    overrides: dict[str, str]
    status: str
    error: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class Group:
    """Jobs that differ in nothing but their seed.

    Attributes:
        settings: the options that differ between groups, and their values.
        jobs: at least one.
        values: the objective of the jobs that are ok.
    """

    settings: dict[str, str]
    jobs: list[Job]
    values: list[float]

    @property
    def mean(self) -> float:
        return fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds (n - 1); NaN for fewer than two."""
        return stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def label(self) -> str:
        """What tells it from other groups; of a single group, all it was given."""
        settings = self.settings or {name: value for name, value in self.jobs[0].overrides.items() if name != "seed"}
        return ", ".join(f"{name.rpartition('.')[2]}={_short(value)}" for name, value in settings.items()) or "default"


def read_jobs(folder: str | Path) -> list[Job]:
    """The jobs of a sweep folder in order of their numbers; none if there is no such folder."""
    return sorted(map(_job, Path(folder).glob(f"*/{JOB}")), key=_number)


def _number(job: Job) -> tuple[int, str]:
    return len(job.path.name), job.path.name


def _job(file: Path) -> Job:
    told = json.loads(file.read_text())
    metrics_file = file.with_name("metrics.json")
    status = "failed" if told["error"] else "ok" if metrics_file.exists() else "unfinished"
    metrics = json.loads(metrics_file.read_text()) if status == "ok" else {}
    return Job(file.parent, _given(told["overrides"]), status, told["error"] or "", metrics)


def _given(overrides: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.lstrip("+").partition("=") for word in overrides)}


def not_run(jobs: Sequence[Job], planned: Sequence[Sequence[str]]) -> list[Job]:
    """Those of a sweep that it did not come to, of the overrides of all."""
    missing = [_given(overrides) for overrides in planned]
    for job in jobs:
        if job.overrides in missing:
            missing.remove(job.overrides)
    return [Job(Path(), overrides, "not run", "", {}) for overrides in missing]


def swept(jobs: Sequence[Job]) -> list[str]:
    """The options that jobs were given different values of."""
    names = dict.fromkeys(name for job in jobs for name in job.overrides)
    return [name for name in names if len({job.overrides.get(name) for job in jobs}) > 1]


def ranked(jobs: Sequence[Job], objective: str, mode: str) -> list[Group]:
    """The jobs grouped by all swept options but the seed, the best mean objective first, groups without any last.

    Args:
        jobs: of one sweep.
        objective: a validation metric; a job without it counts as one without result.
        mode: "min" or "max": which is better.
    """
    names = [name for name in swept(jobs) if name != "seed"]
    grouped: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        grouped.setdefault(tuple(job.overrides.get(name, "") for name in names), []).append(job)
    groups = [
        Group(
            dict(zip(names, key, strict=True)),
            members,
            [j.metrics[objective] for j in members if objective in j.metrics],
        )
        for key, members in grouped.items()
    ]
    sign = 1 if mode == "min" else -1
    return sorted(groups, key=lambda group: sign * group.mean if group.values else math.inf)


def summarise(
    folder: str | Path, jobs: Sequence[Job], objective: str, mode: str, skipped: Collection[Path] = ()
) -> list[Group]:
    """Writes summary.csv and summary.png into the sweep folder, prints the ranking and every job, returns the ranking.

    Only ``objective``, a validation metric, ranks; test metrics are shown beside it. ``skipped`` are the run folders of
    jobs that an earlier start of the sweep had finished.
    """
    groups = ranked(jobs, objective, mode)
    _write_summary(Path(folder), groups, swept(jobs), objective)
    _print(Path(folder), groups, jobs, objective, skipped)
    figure = picture(groups, swept(jobs), objective, mode)
    if figure is not None:
        from imgclf import figures

        write(Path(folder) / "summary.png", figures.png(figures.render(figure)))
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
        name = job.path if job.path.name else " ".join(f"{name}={job.overrides.get(name)}" for name in swept(jobs))
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


def _short(value: str) -> str:
    """A number found by a search to four digits."""
    number = as_number(value)
    return value if number is None or len(value) < 8 else f"{number:.4g}"


def as_number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def picture(groups: Sequence[Group], names: Sequence[str], objective: str, mode: str) -> Any:
    """The figure of a summary, None if no job is ok: lines over epochs with deviation bands if the seed is swept, a
    heat map if a full grid of two options is, else parallel coordinates."""
    from imgclf import figures

    groups = [group for group in groups if group.values]
    if not groups:
        return None
    if "seed" in names or not names:
        curves = {group.label: [_curve(job.path, objective) for job in group.jobs if job.metrics] for group in groups}
        return figures.bands(curves, objective)
    jobs = sorted((job for group in groups for job in group.jobs), key=_number)
    axes = {name: list(dict.fromkeys(job.overrides.get(name, "") for job in jobs)) for name in names}
    for name, values in axes.items():
        if all(as_number(value) is not None for value in values):
            axes[name] = sorted(values, key=float)
    if len(names) == 2 and len(groups) == math.prod(map(len, axes.values())):
        down, across = names
        cells = {tuple(group.settings.values()): group.mean for group in groups}
        grid = [[cells[row, column] for column in axes[across]] for row in axes[down]]
        return figures.annotated_grid(grid, axes[down], axes[across], down, across, objective)
    return figures.parallel_coordinates([group.settings for group in groups], [g.mean for g in groups], objective, mode)


def _curve(run: Path, objective: str) -> list[float]:
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[objective]) for row in csv.DictReader(file)]


def robustness(folder: str | Path, jobs: Sequence[Job], option: str, accelerator: str) -> None:
    """Evaluates every job's best.ckpt on the test images of every value of a data option.

    Writes robustness.csv (a row a training configuration, a column a value; test accuracy, the mean over seeds) and
    robustness.png.

    Args:
        folder: of the sweep.
        jobs: all ok.
        option: such as "data.variation".
        accelerator: where to evaluate: "auto", "cpu" or "gpu".
    """
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from imgclf import figures
    from imgclf.checkpoint import data_modules, load
    from imgclf.cli import plain
    from imgclf.device import choose_device
    from imgclf.evaluation import evaluate

    folder, name = Path(folder), option.removeprefix("data.")
    configs = [plain(OmegaConf.load(job.path / "config.yaml")) for job in jobs]
    values = list(dict.fromkeys(str(config["data"][name]) for config in configs))
    accuracies: dict[str, list[list[float]]] = {}
    sets: dict[str, Any] = {}
    for job, config in zip(jobs, configs, strict=True):
        predictor = load(RunFolder(job.path).best, choose_device(accelerator))
        names = [key for key in swept(jobs) if key != "seed"]
        trained_on = ", ".join(job.overrides.get(key, "") for key in names) or str(config["data"][name])
        row = []
        for value in values:
            options = {**config["data"], name: value, "seed": 0}  # test images do not depend on the seed
            key = str(options)
            if key not in sets:  # each is read and varied once for all networks
                sets[key] = instantiate(options, _convert_="all", _execution_whitelist_=data_modules())
                sets[key].prepare_data()
            row.append(evaluate(predictor, sets[key], "test").metrics["test/accuracy"])
        log.info("%s: %s", trained_on, "  ".join(f"{v} {a:.4f}" for v, a in zip(values, row, strict=True)))
        accuracies.setdefault(trained_on, []).append(row)
    grid = {label: [fmean(column) for column in zip(*rows, strict=True)] for label, rows in accuracies.items()}
    rows = [{"trained on": label, **dict(zip(values, row, strict=True))} for label, row in grid.items()]
    write_csv(folder / "robustness.csv", ["trained on", *values], rows)
    figure = figures.annotated_grid(
        list(grid.values()), list(grid), values, f"trained on {option}", f"evaluated on {option}", "test/accuracy"
    )
    write(folder / "robustness.png", figures.png(figures.render(figure)))
    told = f"{'robustness':>10}:  {folder / 'robustness.csv'}"
    get_console().print(told, highlight=False, markup=False, soft_wrap=True)

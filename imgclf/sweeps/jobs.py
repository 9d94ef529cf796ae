"""Compares the jobs of a sweep folder: a row a job, seeds aggregated, ranked by a validation metric, one picture."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from imgclf.runs.run_dir import JOB


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


def swept_options(jobs: Sequence[Job]) -> list[str]:
    """The options that jobs were given different values of."""
    names = dict.fromkeys(name for job in jobs for name in job.overrides)
    return [name for name in names if len({job.overrides.get(name) for job in jobs}) > 1]


def rank_jobs(jobs: Sequence[Job], objective: str, mode: str) -> list[Group]:
    """The jobs grouped by all swept options but the seed, the best mean objective first, groups without any last.

    Args:
        jobs: of one sweep.
        objective: a validation metric; a job without it counts as one without result.
        mode: "min" or "max": which is better.
    """
    names = [name for name in swept_options(jobs) if name != "seed"]
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


def _short(value: str) -> str:
    """A number found by a search to four digits."""
    number = as_number(value)
    return value if number is None or len(value) < 8 else f"{number:.4g}"


def as_number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None

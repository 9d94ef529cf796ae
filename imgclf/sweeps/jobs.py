"""The jobs of a sweep, read from their run folders, and their configurations, ranked by a validation metric."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from imgclf.runs.run_dir import JOB

AVERAGED_OVER = ("seed", "data.fold")  # jobs that differ in these options only are runs of the same configuration


@dataclass(frozen=True)
class Job:
    """A job of a sweep, as its run folder describes it."""

    path: Path  # the run folder
    overrides: dict[str, str]  # the options it was given, and their values
    status: str  # "ok"; "failed"; "unfinished", when it was killed or still runs; or "not run"
    error: str = ""  # one line that says why it failed
    message: str = ""  # the text of the exception that it failed with
    metrics: dict[str, float] = field(default_factory=dict)  # from metrics.json without null, if the status is "ok"


@dataclass(frozen=True)
class Configuration:
    """Jobs that differ only in the options of ``AVERAGED_OVER``."""

    settings: dict[str, str]  # the options that differ between the configurations of the sweep, and their values
    jobs: list[Job]  # at least one
    values: list[float]  # the objective of each job whose status is "ok"

    @property
    def mean(self) -> float:
        """The mean objective; NaN without values."""
        return fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """The standard deviation of the objective (n - 1); NaN for fewer than two values."""
        return stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def label(self) -> str:
        """The settings in short; of the only configuration of a sweep, all options that it was given."""
        given = {name: value for name, value in self.jobs[0].overrides.items() if name not in AVERAGED_OVER}
        settings = self.settings or given
        return ", ".join(f"{name.rpartition('.')[2]}={_short(value)}" for name, value in settings.items()) or "default"


def read_jobs(folder: str | Path) -> list[Job]:
    """Reads the jobs of a sweep folder, in the order of their numbers; without such a folder there are none."""
    return sorted(map(_read_job, Path(folder).glob(f"*/{JOB}")), key=job_order)


def job_order(job: Job) -> tuple[int, str]:
    """A sort key: the order in which the jobs of a sweep were started."""
    return len(job.path.name), job.path.name


def _read_job(file: Path) -> Job:
    content, metrics_file = json.loads(file.read_text()), file.with_name("metrics.json")
    error = content["error"] or ""
    status = "failed" if error else "ok" if metrics_file.exists() else "unfinished"
    metrics = json.loads(metrics_file.read_text()) if status == "ok" else {}
    return Job(
        path=file.parent,
        overrides=_parse(content["overrides"]),
        status=status,
        error=error,
        message=content.get("message", error) or "",  # an older version wrote none
        metrics={name: value for name, value in metrics.items() if value is not None},
    )


def _parse(overrides: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (word.lstrip("+").partition("=") for word in overrides)}


def jobs_not_run(jobs: Sequence[Job], planned: Sequence[Sequence[str]]) -> list[Job]:
    """Returns a job for each of the planned lists of overrides that none of ``jobs`` has."""
    missing = [_parse(overrides) for overrides in planned]
    for job in jobs:
        if job.overrides in missing:
            missing.remove(job.overrides)
    return [Job(Path(), overrides, "not run") for overrides in missing]


def swept_options(jobs: Sequence[Job]) -> list[str]:
    """The options of which the jobs were given different values."""
    names = dict.fromkeys(name for job in jobs for name in job.overrides)
    return [name for name in names if len({job.overrides.get(name) for job in jobs}) > 1]


def compared_options(jobs: Sequence[Job]) -> list[str]:
    """The swept options that are not averaged over: those that tell configurations apart."""
    return [name for name in swept_options(jobs) if name not in AVERAGED_OVER]


def rank_configurations(jobs: Sequence[Job], objective: str, mode: Literal["min", "max"]) -> list[Configuration]:
    """Groups the jobs of a sweep into configurations, and sorts these by their mean objective, the best first.

    A job without the objective counts as one without a result. Configurations without any result come last.
    """
    names = compared_options(jobs)
    members: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        members.setdefault(tuple(job.overrides.get(name, "") for name in names), []).append(job)
    configurations = []
    for values, same in members.items():
        results = [job.metrics[objective] for job in same if objective in job.metrics]
        configurations.append(Configuration(dict(zip(names, values, strict=True)), same, results))
    sign = 1 if mode == "min" else -1
    return sorted(configurations, key=lambda tried: sign * tried.mean if tried.values else math.inf)


def as_number(value: str) -> float | None:
    """The number that a value is, None for other values."""
    try:
        return float(value)
    except ValueError:
        return None


def _short(value: str) -> str:
    """The value, or its first four digits if it is a long number, as a search draws them."""
    number = as_number(value)
    return value if number is None or len(value) < 8 else f"{number:.4g}"

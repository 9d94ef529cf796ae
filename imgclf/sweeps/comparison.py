"""What surrounds a sweep: its options are checked before the first job, and its jobs are compared after the last."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from imgclf.core.names import better
from imgclf.sweeps.jobs import Job, jobs_not_run, read_jobs, swept_options

Check = Callable[[dict[str, Any]], Any]


@contextlib.contextmanager
def checked_and_compared(
    config: DictConfig, check: Check, *, planned: Sequence[Sequence[str]] = (), failures_allowed: bool = False
) -> Iterator[None]:
    """Surrounds the jobs of a sweep: checks the options first, and compares the jobs at the end, however it comes.

    Args:
        config: composed for the sweep, with its ``hydra`` node.
        check: raises a ValueError for a bad option; it gets the configuration without ``hydra``, as plain types.
        planned: the overrides of every job, where they are known, so that the summary names the jobs not run.
        failures_allowed: whether failed jobs belong to the result. Even then, one job must succeed.

    Raises:
        ValueError: an option is bad, or jobs failed.
        FileExistsError: the folder holds a sweep already, and ``resume`` is off.
    """
    from imgclf.sweeps.summary import summarise  # lazy: matplotlib

    folder = Path(config.hydra.sweep.dir)
    options: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, [name for name in config if name != "hydra"]))
    check(options)
    before = read_jobs(folder)
    if before and not config.resume:
        raise FileExistsError(
            f"{folder} holds a sweep already; add resume=true to continue it, or choose another hydra.sweep.dir"
        )
    failure, ranking = None, []
    try:
        yield
    except Exception as error:
        failure = error
    except SystemExit as stop:  # Python would end as if the sweep had succeeded
        failure = RuntimeError(f"the sweep was asked to exit with {stop.code}")
    finally:
        if jobs := read_jobs(folder):
            finished = {job.path for job in before if job.status == "ok"}
            every_job = [*jobs, *jobs_not_run(jobs, planned)]
            ranking = summarise(folder, every_job, config.objective, better(config.objective), finished)
    _raise_for_failures(folder, jobs, failure, failures_allowed)
    if "data.fold" in swept_options(jobs):
        from imgclf.sweeps.html_report import write_sweep_report  # lazy: torch
        from imgclf.sweeps.out_of_fold import report_out_of_fold

        report_out_of_fold(folder, ranking[0], config.trainer.accelerator)
        write_sweep_report(folder, config.objective)  # again, with what the folds tell together
    if "cross_evaluate" in config:
        from imgclf.sweeps.robustness import evaluate_robustness  # lazy: torch

        evaluate_robustness(folder, jobs, config.cross_evaluate, config.trainer.accelerator)


def _raise_for_failures(folder: Path, jobs: Sequence[Job], failure: Exception | None, failures_allowed: bool) -> None:
    failed = [job for job in jobs if job.status != "ok"]
    none_succeeded = len(failed) == len(jobs)
    is_of_a_job = any(job.status == "failed" and job.message == str(failure) for job in failed)
    if failure and not (jobs and none_succeeded) and not is_of_a_job:
        raise failure
    if failed and (none_succeeded or not failures_allowed):
        raise ValueError(
            f"{len(failed)} of {len(jobs)} jobs failed, listed in {folder}/summary.csv; "
            f"{failed[0].path}: {failed[0].error or failed[0].status}"
        ) from failure

"""report.html of a sweep: its ranking, its figures and links to the reports of its jobs, made from its folder."""

import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean, stdev

from imgclf.core.files import read_csv, write_file
from imgclf.core.names import VERSION
from imgclf.evaluation.html_report import command_line, embedded_figures, render_page
from imgclf.sweeps.jobs import AVERAGED_OVER

MAX_ROWS = 200  # jobs in a table; summary.csv has all
CAPTIONS = {
    "summary": "The validation metric that ranks the configurations, by what was swept",
    "robustness": "Test accuracy of each configuration on other images",
    "label_issues": "The labels that are most probably wrong; label_issues.csv has all",
}


def write_sweep_report(folder: Path, objective: str) -> Path:
    """Writes report.html into a sweep folder that has its summary.csv, ranked by ``objective``; returns its path."""
    rows, out_of_fold = read_csv(folder / "summary.csv"), folder / "oof_metrics.json"
    columns = list(rows[0])
    swept = columns[columns.index("overrides") + 1 : columns.index("n")]
    configurations = [list(jobs) for _, jobs in itertools.groupby(rows, lambda row: row["rank"]) if jobs]
    page = render_page(
        Path(__file__).with_name("report.html.j2"),
        title=folder.name,
        subtitle=f"Sweep of {len(rows)} jobs, {datetime.now():%Y-%m-%d}, imgclf {VERSION}",
        objective=objective,
        options=[name for name in swept if name not in AVERAGED_OVER],
        ranking=[_ranked(jobs, objective) for jobs in configurations if jobs[0]["rank"]][:MAX_ROWS],
        out_of_fold=json.loads(out_of_fold.read_text()) if out_of_fold.exists() else {},
        jobs=[{**row, "report": _report(folder, row["job"])} for row in rows[:MAX_ROWS]],
        left_out=max(0, len(rows) - MAX_ROWS),
        failed=sum(row["status"] == "failed" for row in rows),
        figures=embedded_figures({file.stem: file for file in folder.glob("*.png") if file.stem in CAPTIONS}),
        captions=CAPTIONS,
        command=_command(folder),
    )
    return write_file(folder / "report.html", page)


def _ranked(jobs: Sequence[Mapping[str, str]], objective: str) -> dict[str, str]:
    """A row of the ranking: what the jobs of a configuration share, and means over these jobs."""
    means = {"value": _mean(jobs, objective), "test": _mean(jobs, "test/accuracy")}
    return {**jobs[0], **means, "took": _mean(jobs, "train/seconds", digits=1)}


def _mean(jobs: Sequence[Mapping[str, str]], name: str, digits: int = 4) -> str:
    """The mean over jobs of a column of summary.csv, with the standard deviation; empty where no job has a value."""
    values = [float(job[name]) for job in jobs if job.get(name)]
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{deviation}" if values else ""


def _command(folder: Path) -> str:
    """The command line that started the sweep; empty where its jobs ran in other processes and do not know it."""
    for file in sorted(folder.glob("*/environment.json")):
        words = json.loads(file.read_text())["command"]
        if {"-m", "--multirun"} & {*words}:
            return command_line(words)
    return ""


def _report(folder: Path, job: str) -> str:
    """The address of a job's report, relative to the sweep's; empty if it has none."""
    return f"./{job}/report.html" if job and (folder / job / "report.html").exists() else ""

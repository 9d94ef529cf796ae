"""Evaluates the networks of a sweep on each other's or on corrupted test images: robustness.csv, robustness.png."""

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from omegaconf import OmegaConf

from imgclf.checkpoints.metadata import build_data
from imgclf.core.console import print_line
from imgclf.core.device import choose_device
from imgclf.core.files import write_csv
from imgclf.data.datamodule import ImageDataModule
from imgclf.evaluation.corruptions import corrupted_accuracies
from imgclf.evaluation.evaluate import Evaluation, evaluate
from imgclf.figures.style import write_figure
from imgclf.figures.sweeps import plot_metric_grid
from imgclf.inference.load import load
from imgclf.inference.predictor import Predictor
from imgclf.runs.run_dir import RunDir
from imgclf.sweeps.html_report import write_sweep_report
from imgclf.sweeps.jobs import Job, compared_options
from imgclf.transforms.corruptions import CORRUPTIONS

log = logging.getLogger(__name__)


def evaluate_robustness(folder: Path, jobs: Sequence[Job], option: str, accelerator: str) -> None:
    """Evaluates every job's best.ckpt on the test images of every value that the jobs have of an option of the data.

    The option "corruption" evaluates every job on its own test images under each corruption instead, as the mean of the
    five severities.

    Writes robustness.csv, with a row for each training configuration and a column for each value, and robustness.png.
    The numbers are test accuracies, averaged over the jobs of a configuration. Every job has the status "ok". The
    option is one of the data, such as "data.variation", or "corruption". The accelerator is "auto", "cpu" or "gpu".
    """
    name, device = option.removeprefix("data."), choose_device(accelerator)
    configs: list[Any] = [OmegaConf.to_container(OmegaConf.load(job.path / "config.yaml").data) for job in jobs]
    if option == "corruption":
        values = list(CORRUPTIONS)
    else:
        values = list(dict.fromkeys(str(config[name]) for config in configs))
    names = compared_options(jobs)
    test_sets: dict[str, ImageDataModule] = {}  # each is read and varied once, for all networks

    def evaluation(predictor: Predictor, options: dict[str, Any]) -> Evaluation:
        options = {**options, "seed": 0}  # test images do not depend on the seed
        key = str(options)
        if key not in test_sets:
            test_sets[key] = build_data(options)
        return evaluate(predictor, test_sets[key], "test")

    accuracies: dict[str, list[dict[str, float]]] = {}
    for job, config in zip(jobs, configs, strict=True):
        predictor = load(RunDir(job.path).best, device)
        if option == "corruption":
            of_severities = corrupted_accuracies(predictor, evaluation(predictor, config))
            row = {corruption: fmean(of_severities[corruption]) for corruption in values}
        else:
            row = {v: evaluation(predictor, {**config, name: v}).metrics["test/accuracy"] for v in values}
        trained_on = ", ".join(job.overrides.get(key, "") for key in names) or str(config.get(name, "all jobs"))
        log.info("%s: %s", trained_on, "  ".join(f"{value} {accuracy:.4f}" for value, accuracy in row.items()))
        accuracies.setdefault(trained_on, []).append(row)

    means = {label: [fmean(row[value] for row in rows) for value in values] for label, rows in accuracies.items()}
    table = [{"trained on": label, **dict(zip(values, row, strict=True))} for label, row in means.items()]
    file = write_csv(folder / "robustness.csv", ["trained on", *values], table)
    titles = {"row_title": "trained on", "column_title": f"evaluated on {option}", "metric": "test/accuracy"}
    figure = plot_metric_grid(list(means.values()), list(means), values, **titles)
    write_figure(folder / "robustness.png", figure)
    write_sweep_report(folder, OmegaConf.load(jobs[0].path / "config.yaml").objective)  # again, with this figure
    print_line(f"robustness:  {file}")

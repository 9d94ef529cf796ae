"""Compares the jobs of a sweep folder: a row a job, seeds aggregated, ranked by a validation metric, one picture."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rich import get_console

from imgclf.core.files import write_csv, write_file
from imgclf.figures.style import encode_png, render
from imgclf.figures.sweeps import plot_grid
from imgclf.runs.run_dir import RunDir
from imgclf.sweeps.jobs import Job, swept_options
from imgclf.sweeps.summary import log


def evaluate_robustness(folder: str | Path, jobs: Sequence[Job], option: str, accelerator: str) -> None:
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

    from imgclf.checkpoints.metadata import datamodule_classes
    from imgclf.cli import plain
    from imgclf.core.device import choose_device
    from imgclf.evaluation.evaluate import evaluate
    from imgclf.inference.load import load

    folder, name = Path(folder), option.removeprefix("data.")
    configs = [plain(OmegaConf.load(job.path / "config.yaml")) for job in jobs]
    values = list(dict.fromkeys(str(config["data"][name]) for config in configs))
    accuracies: dict[str, list[list[float]]] = {}
    sets: dict[str, Any] = {}
    for job, config in zip(jobs, configs, strict=True):
        predictor = load(RunDir(job.path).best, choose_device(accelerator))
        names = [key for key in swept_options(jobs) if key != "seed"]
        trained_on = ", ".join(job.overrides.get(key, "") for key in names) or str(config["data"][name])
        row = []
        for value in values:
            options = {**config["data"], name: value, "seed": 0}  # test images do not depend on the seed
            key = str(options)
            if key not in sets:  # each is read and varied once for all networks
                sets[key] = instantiate(options, _convert_="all", _execution_whitelist_=datamodule_classes())
                sets[key].prepare_data()
            row.append(evaluate(predictor, sets[key], "test").metrics["test/accuracy"])
        log.info("%s: %s", trained_on, "  ".join(f"{v} {a:.4f}" for v, a in zip(values, row, strict=True)))
        accuracies.setdefault(trained_on, []).append(row)
    grid = {label: [fmean(column) for column in zip(*rows, strict=True)] for label, rows in accuracies.items()}
    rows = [{"trained on": label, **dict(zip(values, row, strict=True))} for label, row in grid.items()]
    write_csv(folder / "robustness.csv", ["trained on", *values], rows)
    figure = plot_grid(
        list(grid.values()), list(grid), values, f"trained on {option}", f"evaluated on {option}", "test/accuracy"
    )
    write_file(folder / "robustness.png", encode_png(render(figure)))
    told = f"{'robustness':>10}:  {folder / 'robustness.csv'}"
    get_console().print(told, highlight=False, markup=False, soft_wrap=True)

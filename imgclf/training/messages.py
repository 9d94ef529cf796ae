"""What a run tells its user: at the start what is trained on what, at the end what came of it and how to go on."""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from imgclf.core.console import labelled, print_line, print_table
from imgclf.core.names import EVALUATION_METRICS, SPLITS
from imgclf.core.text import decimals, printable
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.remarks import labels_before_training
from imgclf.evaluation.html_report import describe
from imgclf.evaluation.report import print_worst_classes
from imgclf.runs.command_line import shell_command
from imgclf.runs.run_dir import RunDir

NAMED_CLASSES = 4  # of more, the rarest and the largest are named
log = logging.getLogger(__name__)


def announce(
    run_dir: RunDir, data: ImageDataModule, trainer: pl.Trainer, config: Mapping[str, Any], continued: bool
) -> None:
    """Logs what is trained on what, where and in which precision, and what to know about the data.

    A sweep's job has all of this in its log file, and prints its folder and the remarks only. The arguments are those
    of ``fit``.
    """
    device = trainer.strategy.root_device
    where = f"{trainer.world_size} processes, each on {device.type}" if trainer.world_size > 1 else str(device)
    threads = torch.get_num_threads()
    compute = f", {threads} thread{'s' * (threads > 1)}" if device.type == "cpu" else ""
    lines = {
        "data": printable(describe(config["data"])),
        **{split: _described_images(labels_before_training(data, split), data.class_names) for split in data.splits},
        "network": describe(config["model"]),
        "device": f"{where}{compute}, precision {trainer.precision}",
    }
    for line in labelled(lines):
        log.log(logging.DEBUG if run_dir.in_sweep else logging.INFO, line)
    (folder,) = labelled({"folder": f"{run_dir.path}{', continued' if continued else ''}"})
    log.info(folder)
    for remark in data.remarks():
        log.warning(remark)


def _described_images(labels: torch.Tensor | None, names: Sequence[str]) -> str:
    """How many images a split has, and what share each class has, or the rarest and the largest of many."""
    if labels is None:
        return "read when training has ended"
    counts, total = labels.bincount(minlength=len(names)).tolist(), len(labels)
    if len(names) > NAMED_CLASSES:
        fewest, most = min(counts), max(counts)
        rarest, largest = (printable(names[counts.index(count)]) for count in (fewest, most))
        ends = f"{fewest / total:.1%} ({rarest}) to {most / total:.1%} ({largest})"
        return f"{total:,} images of {len(names)} classes, each {ends}"
    shares = (f"{printable(name)} {count / total:.1%}" for name, count in zip(names, counts, strict=True))
    return f"{total:,} images: {', '.join(shares)}"


def print_summary(run_dir: RunDir, metrics: Mapping[str, float | None], overrides: Sequence[str]) -> None:
    """Prints the content of a finished run's metrics.json and the commands that go on from here.

    ``overrides`` are the options that the run was started with.
    """
    splits = [split for split in SPLITS if f"{split}/loss" in metrics]
    file = run_dir.path / "intervals.json"  # which runs of old do not have
    intervals = json.loads(file.read_text()) if file.exists() else {}
    rows = []
    for name in EVALUATION_METRICS:
        if f"val/{name}" in metrics:
            low, high = intervals.get(f"{splits[-1]}/{name}", (None, None))
            interval = "" if low is None else f"{decimals(low)} to {decimals(high)}"
            rows.append((name, *(decimals(metrics.get(f"{split}/{name}")) for split in splits), interval))
    title = f"best.ckpt (epoch {metrics['best_epoch']} of {metrics['epochs']})"
    print_table(title, ["metric", *splits, f"95% interval, {splits[-1]}"], rows)
    print_worst_classes(run_dir, splits[-1])
    script = Path(sys.argv[0])
    evaluate = ["python", str(script.with_name("evaluate.py")), f"ckpt={run_dir.best}"]
    again = [word for word in overrides if not word.startswith("resume=")]
    commands = {
        "evaluate": evaluate if "test" in splits else [*evaluate, "split=val"],
        "predict": [*evaluate, "images=PATH"],
        "resume": ["python", str(script), *again, f"hydra.run.dir={run_dir.path}", "resume=true"],
    }
    if (run_dir.path / "tensorboard").exists():
        commands["dashboard"] = ["tensorboard", "--logdir", str(run_dir.path)]
    lines = {purpose: shell_command(command) for purpose, command in commands.items()}
    seconds, speed = metrics["train/seconds"], metrics["train/images_per_second"]
    trained = f"in {seconds:.1f} s, {speed:,.0f} images per second at best"
    print_line("")
    for line in labelled({"trained": trained, **lines, "report": str(run_dir.path / "report.html")}):
        print_line(line)

"""report.html: one self-contained page about a training run or an evaluation, made from the files of its folder."""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from PIL import Image

from imgclf.core.files import read_csv
from imgclf.core.names import COVERAGES, EVALUATION_METRICS, SPLITS
from imgclf.core.text import decimals, printable
from imgclf.data.datamodule import ImageDataModule
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.model_card import intended_use, limits, model_facts
from imgclf.inference.predictor import Predictor
from imgclf.runs.command_line import shell_command
from imgclf.runs.logs import warnings_in
from imgclf.runs.run_dir import JOB, RunDir

MAX_FIGURES_BYTES = 2_000_000  # of all PNG files together; base64 makes them a third longer
FEWEST_COLOURS, SMALLER = 64, 0.8
MAX_ROWS = 200  # of the tables of classes and subgroups; per_class.csv and subgroups.csv have all
MISTAKES = 10  # that are listed
PLAIN_COLOURS = 200_000  # bytes, from which on a figure is stored with a palette
NOT_ABOUT_IMAGES = ("data_dir", "cache_dir", "batch_size", "eval_batch_size", "num_workers", "seed", "class_map")
# What the figures show; those without an entry come last, under their own name.
CAPTIONS = {
    "data": "How many images each class has, and their mean",
    "samples": "Images as the network sees them",
    "curves": "Loss and accuracy after each epoch",
    "confusion_matrix": "How often each true class (row) was predicted as each class (column)",
    "roc": "Sensitivity against false alarms for every threshold",
    "precision_recall": "Precision against recall for every threshold",
    "calibration": "Below the diagonal the network is too sure of itself, above it not sure enough",
    "mistakes": "The mistakes that the network was surest of",
    "grad_cam": "Where the network looked",
    "risk_coverage": "Share of wrong answers, if only the images that the network is surest of get one",
    "corruptions": "Accuracy under noise, blur, weather and compression",
}


def write_report(
    run_dir: RunDir,
    metrics: Mapping[str, float | None],
    predictor: Predictor,
    evaluations: Sequence[Evaluation],
    data: ImageDataModule | None = None,
) -> None:
    """Writes model_card.json and report.html into a run folder whose other files are written already.

    ``metrics`` is the content of metrics.json, which a training run writes last of all. ``data`` are those that the
    network was trained on, where they are at hand.
    """
    run_dir.write_json("model_card.json", model_facts(predictor, evaluations, data))
    run_dir.write("report.html", run_page(run_dir.path, metrics))


def run_page(folder: str | Path, metrics: Mapping[str, float | None] | None = None) -> str:
    """Makes the page of a finished training run or evaluation from the files of its folder.

    Example:
        >>> Path("report.html").write_text(run_page("outputs/digits-mlp/2026-01-01"))
    """
    folder = Path(folder)
    values = {
        name: None if value is None or math.isnan(value) else value
        for name, value in (metrics or _read_json(folder / "metrics.json")).items()
    }
    facts, environment = _read_json(folder / "model_card.json"), _read_json(folder / "environment.json")
    intervals = _read_json(folder / "intervals.json") if (folder / "intervals.json").exists() else {}
    config: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    splits, is_training = [split for split in SPLITS if f"{split}/loss" in values], "epochs" in values
    split = splits[-1]
    per_class = [row for row in read_csv(folder / "per_class.csv") if row["split"] == split]
    of_coverage = (f"accuracy_at_{percent}" for percent in COVERAGES)
    names = (*EVALUATION_METRICS, *of_coverage)
    mistakes, subgroups = read_csv(folder / "mistakes.csv"), folder / "subgroups.csv"
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        title=str(config["name"] or folder.name) if is_training else f"Evaluation of {_short(_checkpoints(config), 3)}",
        is_training=is_training,
        config=config,
        config_text=printable((folder / "config.yaml").read_text(errors="surrogateescape")),
        about=_about_training(config, facts, values) if is_training else _about_evaluation(config, facts),
        facts=facts,
        metrics=values,
        metric_names=[name for name in names if f"{split}/{name}" in values],
        intervals=intervals,
        splits=splits,
        split=split,
        max_rows=MAX_ROWS,
        per_class=per_class[:MAX_ROWS],
        subgroups=read_csv(subgroups)[:MAX_ROWS] if subgroups.exists() else [],
        classes_left_out=max(0, len(per_class) - MAX_ROWS),
        mistakes=[{**row, "file": _short(row["file"])} for row in mistakes[:MISTAKES]],
        mistakes_count=len(mistakes),
        use=intended_use(facts, is_training),
        limits=limits(facts, split, values, intervals, per_class),
        warnings=[warning for log in sorted(folder.glob("*.log")) for warning in warnings_in(log)],
        environment=environment,
        command=command_line(_words(folder, environment["command"])),
        figures=embedded_figures({file.stem: file for file in sorted(folder.glob("figures/*.png"))}),
        captions=CAPTIONS,
    )


def render_page(template: Path, **values: Any) -> str:
    """Fills in a jinja2 template, which may extend page.html.j2. All text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # lazy: needed once, at the end of a run

    folders = [template.parent, Path(__file__).parent]
    pages = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["decimals"] = decimals
    return pages.get_template(template.name).render(values)


def embedded_figures(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """The name of each PNG file to its "src" for an <img>, its "width" and its "height".

    Large files are stored with fewer colours, and then with fewer pixels, so that all of them stay within
    ``MAX_FIGURES_BYTES``.
    """
    figures, limit = {}, MAX_FIGURES_BYTES // max(1, len(files))
    for name, file in files.items():
        data, size = _shrink(file.read_bytes(), limit)
        source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
        figures[name] = {"src": source, "width": size[0], "height": size[1]}
    return figures


def _shrink(data: bytes, limit: int) -> tuple[bytes, tuple[int, int]]:
    """A PNG file of at most ``limit`` bytes, and the size at which it is shown: that of the file given."""
    with Image.open(io.BytesIO(data)) as image:
        size, pixels = image.size, image.convert("RGB") if len(data) > min(limit, PLAIN_COLOURS) else None
    colours = 256
    while pixels and len(data) > min(limit, PLAIN_COLOURS):
        file = io.BytesIO()
        pixels.quantize(colours).save(file, format="png")
        data = file.getvalue()
        if len(data) <= limit:
            break
        if colours > FEWEST_COLOURS:
            colours //= 2
        else:
            pixels = pixels.resize([max(1, round(side * SMALLER)) for side in pixels.size])
    return data, size


def command_line(words: Sequence[str]) -> str:
    """The command line, in environment.json's words, that repeats a run or a sweep into a new folder."""
    ours = ("hydra.run.dir=", "hydra.sweep.dir=", "resume=")
    return shell_command(["python", *(word for word in words if not word.startswith(ours))])


def _words(folder: Path, command: Sequence[str]) -> Sequence[str]:
    """The command of a run; of a sweep's job, without the rest of the sweep."""
    job = folder / JOB
    return [command[0], *_read_json(job)["overrides"]] if job.exists() else command


def _about_training(config: Mapping[str, Any], facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, str]:
    """What was trained on what: a heading to a text."""
    optimizer, seconds = config["optimizer"], metrics["train/seconds"]
    how = f"{_kind(optimizer)} with learning rate {optimizer.get('lr', 'of its own')}"
    epochs = f"{metrics['epochs']} epoch{'s' * (metrics['epochs'] != 1)} in batches of {config['data']['batch_size']}"
    return {
        "Data": describe(config["data"]),
        "Network": f"{describe(config['model'])}; {facts['parameters']:,} weights",
        "Training": f"{epochs}, {how}, in {seconds:.1f} s",
        "Best epoch": f"{metrics['best_epoch']}, chosen by {config['objective']}; all figures are of its weights",
        "Seed": str(config["seed"]),
    }


def _about_evaluation(config: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, str]:
    """What was evaluated on what: a heading to a text."""
    about = {
        "Checkpoint": _checkpoints(config),
        "Network": f"{facts['network']}; {facts['parameters']:,} weights",
        "Trained on": describe(facts["trained_on"]) if facts["trained_on"] else "unknown data",
        "Evaluated on": f"{describe(config['data'])}; split {config['split']}",
    }
    if config["corruption"] not in (None, "all"):
        about["Corruption"] = f"{config['corruption']} of severity {config['severity']}"
    if config["tta"] > 1:
        about["Views"] = f"the mean over {config['tta']} views of each image"
    return about


def describe(config: Mapping[str, Any]) -> str:
    """The class that a configuration node builds, with those of its options that have a value."""
    options = {
        name: value
        for name, value in config.items()
        if value is not False
        and value not in (None, "none", [])
        and not name.startswith("_")
        and name not in NOT_ABOUT_IMAGES
    }
    text = ", ".join(f"{name}={value}" for name, value in options.items() if not isinstance(value, Mapping))
    return _kind(config) + (f" ({printable(text)})" if text else "")


def _kind(config: Mapping[str, Any]) -> str:
    return str(config["_target_"]).rpartition(".")[2]


def _checkpoints(config: Mapping[str, Any]) -> str:
    given = config["ckpt"]
    return ", ".join(map(printable, [given] if isinstance(given, str) else given))


def _short(file: str, parts: int = 2) -> str:
    """The last parts of a path, which say enough and do not tell where files are on this machine."""
    words = file.split("/")
    return "/".join(["…", *words[-parts:]]) if len(words) > parts else file


def _read_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())

"""What cross-validation tells at its end: a prediction of every training image, metrics, and suspicious labels."""

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor

from imgclf.checkpoints.metadata import build_data
from imgclf.core.console import print_line, print_table
from imgclf.core.device import choose_device
from imgclf.core.files import write_csv, write_json
from imgclf.core.metrics import classification_metrics, many_class_metrics
from imgclf.core.text import decimals, printable
from imgclf.data.datamodule import ImageDataModule
from imgclf.evaluation.evaluate import evaluate
from imgclf.evaluation.label_issues import find_label_issues
from imgclf.evaluation.predictions import prediction_table
from imgclf.figures.classification import plot_label_issues
from imgclf.figures.style import write_figure
from imgclf.inference.ensemble import ensemble
from imgclf.inference.load import load
from imgclf.inference.predictor import Prediction
from imgclf.runs.run_dir import RunDir
from imgclf.sweeps.jobs import Configuration

MAX_SHOWN = 50  # label issues on the contact sheet
ISSUE_COLUMNS = ["file", "label", "label_name", "suggested", "suggested_name", "margin", "p(label)", "p(suggested)"]


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """N training images with the answers of the networks that were not trained on them."""

    data: ImageDataModule  # the data module of one of the folds
    rows: Tensor  # the rows of the images in ``data.dataset("val")``, int64 (N,)
    names: list[str]  # what the images are called in predictions.csv
    labels: Tensor  # int64 (N,)
    losses: Tensor  # float (N,)
    probabilities: Tensor  # float (N, classes)
    predictions: list[Prediction]  # each with the threshold of its own network

    def metrics(self) -> dict[str, float]:
        """The metrics over all N images, such as "oof/accuracy"."""
        predicted = torch.tensor([answer.predicted for answer in self.predictions])
        classes = self.probabilities.shape[1]
        scores = self.probabilities[:, 1].contiguous() if classes == 2 else None
        values = {"loss": self.losses.mean(), **classification_metrics(predicted, self.labels, classes, scores)}
        if classes > 2:
            values |= many_class_metrics(self.probabilities, self.labels)
        return {f"oof/{name}": float(value) for name, value in values.items()}


def report_out_of_fold(folder: Path, tried: Configuration, accelerator: str) -> None:
    """Writes oof_predictions.csv, oof_metrics.json, label_issues.csv and label_issues.png; prints the metrics.

    ``tried`` is a configuration whose jobs differ in data.fold. Where networks of several seeds held out the same fold,
    their probabilities are averaged. If no job held out one of the folds, a line says so, and nothing is written. The
    accelerator is "auto", "cpu" or "gpu".
    """
    configs: dict[int, dict[str, Any]] = {}
    members: dict[int, list[Path]] = defaultdict(list)
    for job in tried.jobs:
        if job.status == "ok":
            config: Any = OmegaConf.to_container(OmegaConf.load(job.path / "config.yaml").data)
            configs[config["fold"]] = config
            members[config["fold"]].append(RunDir(job.path).best)
    folds = next(iter(configs.values()))["folds"]
    if missing := [str(fold) for fold in range(folds) if fold not in configs]:
        print_line(f"no out-of-fold predictions: of {folds} folds (from 0), {', '.join(missing)} did not run")
        return
    answers = predict_out_of_fold([configs[fold] for fold in range(folds)], members, accelerator)
    labels, metrics, classes = answers.labels.tolist(), answers.metrics(), answers.data.class_names
    table = prediction_table(classes, answers.names, labels, answers.predictions, answers.probabilities)
    file = write_csv(folder / "oof_predictions.csv", *table)
    write_json(folder / "oof_metrics.json", metrics)
    rows = [(name.partition("/")[2], decimals(value)) for name, value in metrics.items()]
    print_table(f"out of fold ({len(labels):,} images)", ["metric", "value"], rows)
    print_line(f"out of fold:  {file} ({tried.label})")
    report_label_issues(folder, answers)


def predict_out_of_fold(
    configs: Sequence[Mapping[str, Any]], members: Mapping[int, Sequence[Path]], accelerator: str
) -> OutOfFold:
    """Predicts the images of every fold; ``configs`` has the data of each fold, and ``members`` its checkpoints."""
    device = choose_device(accelerator)
    rows, names, labels, losses, probabilities, predictions = [], [], [], [], [], []
    for fold, config in enumerate(configs):
        predictor = ensemble([load(path, device) for path in members[fold]])
        data = build_data({**config, "seed": 0})  # which images a fold has does not depend on the seed
        evaluation = evaluate(predictor, data, "val")
        rows.append(data.dataset("val").rows)
        names += evaluation.names
        labels.append(evaluation.labels)
        losses.append(evaluation.losses)
        probabilities.append(evaluation.probabilities)
        predictions += predictor.to_predictions(evaluation.probabilities)
    order = torch.cat(rows).argsort()
    return OutOfFold(
        data=data,  # pyrefly: ignore[unbound-name]  # there are two folds at least
        rows=torch.cat(rows)[order],
        names=[names[i] for i in order.tolist()],
        labels=torch.cat(labels)[order],
        losses=torch.cat(losses)[order],
        probabilities=torch.cat(probabilities)[order],
        predictions=[predictions[i] for i in order.tolist()],
    )


def report_label_issues(folder: Path, answers: OutOfFold) -> None:
    """Writes label_issues.csv and, of the most suspicious, label_issues.png; prints how many there are."""
    issues, names = find_label_issues(answers.labels, answers.probabilities), list(answers.data.class_names)
    given, rows = answers.labels[issues.rows], []
    for row, label, other, margin in zip(*(issues.rows, given, issues.suggested, issues.margins), strict=True):
        shares = answers.probabilities[row, [label, other]].tolist()
        classes = int(label), names[label], int(other), names[other]
        rows.append([printable(answers.names[row]), *classes, *(f"{n:.6f}" for n in (float(margin), *shares))])
    file = write_csv(folder / "label_issues.csv", ISSUE_COLUMNS, rows)
    images, first = copy.copy(answers.data.dataset("val")), slice(MAX_SHOWN)
    images.rows = answers.rows[issues.rows[first]]
    title = f"{len(rows):,} of {len(answers.labels):,} labels are suspicious: label → probable class, and its margin"
    figure = plot_label_issues(images, given[first], issues.suggested[first], issues.margins[first], names, title)
    write_figure(folder / "label_issues.png", figure)
    pairs = Counter(f"{label} → {other}" for _, _, label, _, other, *_ in rows).most_common(3)
    most = f", most often {', '.join(f'{pair} ({count})' for pair, count in pairs)}" if rows else ""
    print_line(f"label issues:  {file}: {len(rows):,} of {len(answers.labels):,} labels are suspicious{most}")

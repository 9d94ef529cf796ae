"""What an evaluation leaves behind: tables, figures, and the metrics in the terminal."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from rich import get_console
from rich.markup import escape
from rich.table import Column, Table
from torch import Tensor

from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.grad_cam import plot_explanations
from imgclf.evaluation.intervals import bootstrap_intervals
from imgclf.figures.classification import plot_confusion_matrix, plot_mistakes, plot_precision_recall, plot_roc
from imgclf.figures.dataset import plot_samples
from imgclf.figures.style import encode_png, render
from imgclf.inference.predictor import Prediction, Predictor
from imgclf.runs.run_dir import RunDir

PREDICTION_COLUMNS = ["file", "label", "label_name", "predicted", "class_name", "probability"]


def report_evaluation(run_dir: RunDir, evaluation: Evaluation, predictor: Predictor) -> dict[str, float]:
    """Writes predictions.csv, the figures, intervals.json and metrics.json; prints the metrics and returns them."""
    class_names, split = predictor.class_names, evaluation.split
    predictions = predictor.to_predictions(evaluation.probabilities)
    labels = evaluation.labels.tolist()
    write_predictions(run_dir, evaluation.names, labels, predictions, evaluation.probabilities, class_names)
    title = f"{split.capitalize()} images as the network sees them"
    images, labels = evaluation.images.examples()
    figures = {"samples": plot_samples(images, labels, class_names, title), **result_figures(evaluation, class_names)}
    if explanations := plot_explanations(evaluation, predictor):
        figures["grad_cam"] = explanations
    write_figures(run_dir, figures)
    intervals = bootstrap_intervals(evaluation)
    run_dir.write_json("intervals.json", intervals)
    run_dir.write_json("metrics.json", evaluation.metrics)

    title = f"{split} ({len(evaluation.labels):,} images)"
    table = Table("metric", Column("value", justify="right"), Column("95% interval", justify="right"), title=title)
    for name, value in evaluation.metrics.items():
        low, high = intervals[name]
        table.add_row(name.partition("/")[2], f"{value:.4f}", f"{low:.4f} to {high:.4f}")
    get_console().print(table)
    lines = [f"metrics.json, predictions.csv and figures are in {run_dir.path}"]
    if evaluation.num_classes == 2:
        lines.insert(0, f"{class_names[1]} is predicted from a probability of {evaluation.threshold:.4f} on")
    get_console().print(escape("\n".join(lines)), highlight=False, soft_wrap=True)
    return evaluation.metrics


def result_figures(evaluation: Evaluation, class_names: list[str]) -> dict[str, Figure]:
    """Draws the confusion matrix, the mistakes and, for two classes, the two curves; returns each with its name."""
    metrics, labels, split = evaluation.metrics, evaluation.labels, evaluation.split
    probabilities, threshold = evaluation.probabilities, evaluation.threshold
    title = f"{split.capitalize()} accuracy {metrics[f'{split}/accuracy']:.4f}"
    figures = {
        "confusion_matrix": plot_confusion_matrix(evaluation.confusion_matrix(), class_names, title),
        "mistakes": plot_mistakes(evaluation.images, labels, evaluation.predicted, probabilities, class_names, title),
    }
    if evaluation.num_classes == 2:
        scores, positive = probabilities[:, 1], f"{split.capitalize()}, {class_names[1]}"
        title = f"{positive}: ROC, area {metrics[f'{split}/auroc']:.4f}"
        figures["roc"] = plot_roc(labels, scores, threshold, title)
        title = f"{positive}: average precision {metrics[f'{split}/average_precision']:.4f}"
        figures["precision_recall"] = plot_precision_recall(labels, scores, threshold, title)
    return figures


def write_figures(run_dir: RunDir, figures: Mapping[str, Figure]) -> None:
    """Writes each figure to figures/NAME.png of the run folder."""
    for name, figure in figures.items():
        run_dir.write(f"figures/{name}.png", encode_png(render(figure)))


def write_predictions(
    run_dir: RunDir,
    files: Sequence[str],
    labels: Sequence[int | None],
    predictions: Sequence[Prediction],
    probabilities: Tensor,
    class_names: Sequence[str],
) -> Path:
    """Writes predictions.csv, a row for each image, with the probability of every class, float (N, classes).

    The cells of an unknown label or class, and probabilities that are NaN, stay empty.
    """
    of_classes = [f"p({name})" for name in class_names]
    rows = []
    for file, label, given, shares in zip(files, labels, predictions, probabilities.tolist(), strict=True):
        row = {"file": file, "label": label, "label_name": None if label is None else class_names[label]}
        row |= {**given._asdict(), "probability": _six_decimals(given.probability)}
        rows.append(row | dict(zip(of_classes, map(_six_decimals, shares), strict=True)))
    return run_dir.write_csv("predictions.csv", [*PREDICTION_COLUMNS, *of_classes], rows)


def _six_decimals(value: float | None) -> str | None:
    return None if value is None or math.isnan(value) else f"{value:.6f}"

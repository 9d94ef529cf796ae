"""Evaluates a predictor on a split: metrics, predictions and the tables and figures made of them."""

from matplotlib.figure import Figure
from rich import get_console
from rich.markup import escape
from rich.table import Table

from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.grad_cam import explanations
from imgclf.figures.classification import plot_confusion_matrix, plot_mistakes, plot_precision_recall, plot_roc
from imgclf.figures.dataset import plot_samples
from imgclf.figures.style import encode_png, render
from imgclf.inference.predictor import Prediction, Predictor
from imgclf.runs.run_dir import RunDir

PREDICTION_COLUMNS = ["file", "label", "predicted", "class_name", "probability"]  # of predictions.csv


def report_evaluation(folder: RunDir, evaluation: Evaluation, predictor: Predictor) -> dict[str, float]:
    """Writes predictions.csv, the figures, intervals.json and metrics.json of a split, prints and returns metrics."""
    e, class_names = evaluation, predictor.class_names
    rows = prediction_rows(e.names, e.labels.tolist(), predictor.to_predictions(e.probabilities))
    folder.write_csv("predictions.csv", PREDICTION_COLUMNS, rows)
    title = f"{e.split.capitalize()} images as the network sees them"
    samples = {"samples": plot_samples(*e.images.examples(), class_names, title)}
    for name, figure in {**samples, **result_figures(e, class_names), **explanations(e, predictor)}.items():
        folder.write(f"figures/{name}.png", encode_png(render(figure)))
    intervals = e.intervals()
    folder.write_json("intervals.json", intervals)
    folder.write_json("metrics.json", e.metrics)
    console = get_console()
    results = Table(title=f"{e.split} ({len(e.labels):,} images)")
    for column in ("metric", "value", "95% interval"):
        results.add_column(column, justify="left" if column == "metric" else "right")
    for name, value in e.metrics.items():
        low, high = intervals[name]
        results.add_row(name.removeprefix(f"{e.split}/"), f"{value:.4f}", f"{low:.4f} to {high:.4f}")
    console.print(results)
    if len(class_names) == 2:
        console.print(
            f"{escape(class_names[1])} is predicted from a probability of {e.threshold:.4f} on", highlight=False
        )
    console.print(
        f"metrics.json, predictions.csv and figures are in {escape(str(folder.path))}", highlight=False, soft_wrap=True
    )
    return e.metrics


def result_figures(evaluation: Evaluation, class_names: list[str]) -> dict[str, Figure]:
    """Name to figure: what a split's answers look like."""
    e = evaluation
    title = f"{e.split.capitalize()} accuracy {e.metrics[f'{e.split}/accuracy']:.4f}"
    shown = {
        "confusion_matrix": plot_confusion_matrix(e.confusion(), class_names, title),
        "mistakes": plot_mistakes(e.images, e.labels, e.predicted, e.probabilities, class_names, title),
    }
    if len(class_names) == 2:
        answers = e.labels, e.probabilities[:, 1], e.threshold
        name = f"{e.split.capitalize()}, {class_names[1]}"
        shown["roc"] = plot_roc(*answers, f"{name}: ROC, area {e.metrics[f'{e.split}/auroc']:.4f}")
        area = e.metrics[f"{e.split}/average_precision"]
        shown["precision_recall"] = plot_precision_recall(*answers, f"{name}: average precision {area:.4f}")
    return shown


def prediction_rows(files: list[str], labels: list[int | str], answers: list[Prediction]) -> list[dict]:
    """The rows of predictions.csv: an empty label where it is unknown; no class where no single digit was found."""
    return [
        {
            "file": file,
            "label": label,
            "predicted": "" if answer.predicted is None else answer.predicted,
            "class_name": answer.class_name,
            "probability": "" if answer.probability is None else f"{answer.probability:.6f}",
        }
        for file, label, answer in zip(files, labels, answers, strict=True)
    ]

"""What an evaluation leaves behind: tables, figures, and the metrics in the terminal."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from imgclf.core.console import print_line, print_table
from imgclf.core.files import read_csv
from imgclf.core.text import decimals
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.grad_cam import plot_explanations
from imgclf.evaluation.html_report import write_report
from imgclf.evaluation.intervals import bootstrap_intervals
from imgclf.evaluation.predictions import write_predictions
from imgclf.evaluation.subgroups import print_subgroups, write_subgroups
from imgclf.evaluation.tables import PER_CLASS, PER_CLASS_COLUMNS, confusion_rows, per_class_rows
from imgclf.figures.classification import find_mistakes, plot_confusion_matrix, plot_mistakes
from imgclf.figures.curves import plot_calibration, plot_precision_recall, plot_risk_coverage, plot_roc
from imgclf.figures.dataset import plot_samples
from imgclf.figures.style import encode_png, render
from imgclf.inference.predictor import Predictor
from imgclf.runs.run_dir import RunDir

WORST = 5  # classes in the terminal


def report_evaluation(
    run_dir: RunDir, evaluation: Evaluation, predictor: Predictor, subgroups: Mapping[str, Sequence[str]] | None = None
) -> None:
    """Writes the tables and figures, intervals.json and metrics.json, and prints the metrics.

    ``subgroups`` has the name of a division of the images, and the part that each of them belongs to.
    """
    class_names, split = predictor.class_names, evaluation.split
    write_tables(run_dir, [evaluation], predictor)
    title = f"{split.capitalize()} images as the network sees them"
    images, labels = evaluation.images.examples()
    figures = {"samples": plot_samples(images, labels, class_names, title), **result_figures(evaluation, class_names)}
    if explanations := plot_explanations(evaluation, predictor):
        figures["grad_cam"] = explanations
    write_figures(run_dir, figures)
    intervals = bootstrap_intervals(evaluation)
    run_dir.write_json("intervals.json", intervals)
    run_dir.write_json("metrics.json", evaluation.metrics)
    tables = {name: write_subgroups(run_dir, evaluation, parts) for name, parts in (subgroups or {}).items()}
    write_report(run_dir, evaluation.metrics, predictor, [evaluation])

    title = f"{split} ({len(evaluation.labels):,} images)"
    rows = []
    for name, value in evaluation.metrics.items():
        low, high = intervals.get(name, (math.nan, math.nan))
        interval = "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"
        rows.append((name.partition("/")[2], decimals(value), interval))
    print_table(title, ["metric", "value", "95% interval"], rows)
    print_worst_classes(run_dir, split)
    for name, parts in tables.items():
        print_subgroups(parts, f"{split} by {name}")
    lines = [f"metrics.json, predictions.csv, per_class.csv and figures are in {run_dir.path}"]
    if evaluation.num_classes == 2:
        lines.insert(0, f"{class_names[1]} is predicted from a probability of {evaluation.threshold:.4f} on")
    lines.append(f"report: {run_dir.path / 'report.html'}")
    print_line("\n".join(lines))


def print_worst_classes(run_dir: RunDir, split: str) -> None:
    """Prints the classes of the lowest F1 in a folder's per_class.csv, if there are many and not all are perfect."""
    file = run_dir.path / "per_class.csv"  # which runs of old do not have
    rows = [row for row in read_csv(file) if row["split"] == split] if file.exists() else []
    worst = sorted((row for row in rows if row["images"] != "0"), key=lambda row: float(row["f1"]))[:WORST]
    if len(rows) <= WORST or not worst or float(worst[0]["f1"]) == 1:
        return
    title = f"{split}: the worst {len(worst)} of {len(rows)} classes"
    shown = [(row["class"], f"{int(row['images']):,}", *(decimals(row[name]) for name in PER_CLASS)) for row in worst]
    print_table(title, ["class", "images", *PER_CLASS], shown)


def write_tables(run_dir: RunDir, evaluations: Sequence[Evaluation], predictor: Predictor) -> None:
    """Writes per_class.csv of all evaluations, and of the last one the other tables."""
    names, last = predictor.class_names, evaluations[-1]
    rows = [row for evaluation in evaluations for row in per_class_rows(evaluation, names)]
    run_dir.write_csv("per_class.csv", PER_CLASS_COLUMNS, rows)
    run_dir.write_csv("confusion_matrix.csv", ["", *names], confusion_rows(last, names))
    wrong = find_mistakes(last.labels, last.predicted, last.probabilities)
    given = zip(*(values[wrong].tolist() for values in (last.labels, last.predicted)), strict=True)
    confidence = last.probabilities[wrong, last.predicted[wrong]].tolist()
    rows = [
        (last.names[row], names[label], names[answer], f"{share:.6f}")
        for row, (label, answer), share in zip(wrong.tolist(), given, confidence, strict=True)
    ]
    run_dir.write_csv("mistakes.csv", ["file", "label_name", "class_name", "probability"], rows)
    predictions = predictor.to_predictions(last.probabilities)
    write_predictions(run_dir, names, last.names, last.labels.tolist(), predictions, last.probabilities)


def result_figures(evaluation: Evaluation, class_names: list[str]) -> dict[str, Figure]:
    """Draws an evaluation's figures, those of two classes too, and returns each with its name."""
    metrics, labels, split = evaluation.metrics, evaluation.labels, evaluation.split
    probabilities, threshold = evaluation.probabilities, evaluation.threshold
    title = f"{split.capitalize()} accuracy {metrics[f'{split}/accuracy']:.4f}"
    figures = {
        "confusion_matrix": plot_confusion_matrix(evaluation.confusion_matrix(), class_names, title),
        "mistakes": plot_mistakes(evaluation.images, labels, evaluation.predicted, probabilities, class_names, title),
    }
    correct, confidence = evaluation.predicted == labels, evaluation.confidence
    figures["calibration"] = plot_calibration(correct, confidence, f"{split.capitalize()}, predicted classes")
    figures["risk_coverage"] = plot_risk_coverage(correct, confidence, f"{split.capitalize()}: risk and coverage")
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

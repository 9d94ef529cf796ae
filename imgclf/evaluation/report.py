"""What an evaluation leaves behind: tables, figures, and the metrics in the terminal."""

from matplotlib.figure import Figure
from rich import get_console
from rich.markup import escape
from rich.table import Column, Table

from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.explanations import plot_explanations
from imgclf.evaluation.intervals import bootstrap_intervals
from imgclf.evaluation.predictions_csv import write_predictions
from imgclf.figures.classification import plot_confusion_matrix, plot_mistakes, plot_precision_recall, plot_roc
from imgclf.figures.dataset import plot_samples
from imgclf.figures.style import encode_png, render
from imgclf.inference.predictor import Predictor
from imgclf.runs.run_dir import RunDir


def report_evaluation(run_dir: RunDir, evaluation: Evaluation, predictor: Predictor) -> dict[str, float]:
    """Writes predictions.csv, the figures, intervals.json and metrics.json; prints the metrics and returns them.

    Args:
        run_dir: where to write.
        evaluation: what ``evaluate`` returned for the predictor.
        predictor: explains some images by ``grad_cam``.
    """
    class_names = predictor.class_names
    predictions = predictor.to_predictions(evaluation.probabilities)
    write_predictions(run_dir, evaluation.names, evaluation.labels.tolist(), predictions)
    title = f"{evaluation.split.capitalize()} images as the network sees them"
    images, labels = evaluation.images.examples()
    figures = {"samples": plot_samples(images, labels, class_names, title), **result_figures(evaluation, class_names)}
    if explanations := plot_explanations(evaluation, predictor):
        figures["grad_cam"] = explanations
    for name, figure in figures.items():
        run_dir.write(f"figures/{name}.png", encode_png(render(figure)))
    intervals = bootstrap_intervals(evaluation)
    run_dir.write_json("intervals.json", intervals)
    run_dir.write_json("metrics.json", evaluation.metrics)

    console = get_console()
    console.print(_table(evaluation, intervals))
    if evaluation.num_classes == 2:
        rule = f"{class_names[1]} is predicted from a probability of {evaluation.threshold:.4f} on"
        console.print(escape(rule), highlight=False)
    written = f"metrics.json, predictions.csv and figures are in {run_dir.path}"
    console.print(escape(written), highlight=False, soft_wrap=True)
    return evaluation.metrics


def result_figures(evaluation: Evaluation, class_names: list[str]) -> dict[str, Figure]:
    """The name to the figure, of the confusion matrix, the mistakes and, for two classes, the two curves.

    Args:
        evaluation: of any split.
        class_names: in the order of the class indices.
    """
    split, metrics, labels = evaluation.split, evaluation.metrics, evaluation.labels
    title = f"{split.capitalize()} accuracy {metrics[f'{split}/accuracy']:.4f}"
    figures = {
        "confusion_matrix": plot_confusion_matrix(evaluation.confusion_matrix(), class_names, title),
        "mistakes": plot_mistakes(
            evaluation.images, labels, evaluation.predicted, evaluation.probabilities, class_names, title
        ),
    }
    if evaluation.num_classes == 2:
        scores, threshold = evaluation.probabilities[:, 1], evaluation.threshold
        title = f"{split.capitalize()}, {class_names[1]}"
        area, precision = metrics[f"{split}/auroc"], metrics[f"{split}/average_precision"]
        figures["roc"] = plot_roc(labels, scores, threshold, f"{title}: ROC, area {area:.4f}")
        figures["precision_recall"] = plot_precision_recall(
            labels, scores, threshold, f"{title}: average precision {precision:.4f}"
        )
    return figures


def _table(evaluation: Evaluation, intervals: dict[str, tuple[float, float]]) -> Table:
    title = f"{evaluation.split} ({len(evaluation.labels):,} images)"
    table = Table("metric", Column("value", justify="right"), Column("95% interval", justify="right"), title=title)
    for name, value in evaluation.metrics.items():
        low, high = intervals[name]
        table.add_row(name.partition("/")[2], f"{value:.4f}", f"{low:.4f} to {high:.4f}")
    return table

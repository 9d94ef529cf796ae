"""How a predictor fares on corrupted images: every corruption at every severity."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from imgclf.core.console import print_line, print_table
from imgclf.core.metrics import decide
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.html_report import run_page
from imgclf.evaluation.report import write_figures
from imgclf.figures.sweeps import plot_metric_grid
from imgclf.inference.predictor import Predictor
from imgclf.runs.run_dir import RunDir
from imgclf.transforms.corruptions import CORRUPTIONS, SEVERITIES, corrupt


def corrupted_accuracies(predictor: Predictor, evaluation: Evaluation) -> dict[str, list[float]]:
    """The accuracy for each corruption, at the severities 1 to 5, on the images of an evaluation."""
    pixels, labels = evaluation.images[:]
    accuracies: dict[str, list[float]] = {}
    for corruption in CORRUPTIONS:
        accuracies[corruption] = []
        for severity in SEVERITIES:
            probabilities = predictor.logits(corrupt(pixels, corruption, severity)).softmax(1)
            predicted = decide(probabilities, evaluation.threshold)
            accuracies[corruption].append(float((predicted == labels).float().mean()))
    return accuracies


def report_corruptions(run_dir: RunDir, evaluation: Evaluation, accuracies: Mapping[str, Sequence[float]]) -> None:
    """Writes corruptions.csv and figures/corruptions.png, adds the means to metrics.json, and prints a table.

    metrics.json gets the mean over severities for each corruption, such as "test/accuracy/fog", and their mean,
    "test/corrupted_accuracy".
    """
    means = {corruption: fmean(values) for corruption, values in accuracies.items()}
    split, overall = evaluation.split, fmean(means.values())
    rows = [
        {"corruption": corruption, "severity": severity, "accuracy": accuracy}
        for corruption, values in accuracies.items()
        for severity, accuracy in zip(SEVERITIES, values, strict=True)
    ]
    run_dir.write_csv("corruptions.csv", ["corruption", "severity", "accuracy"], rows)
    metrics = {f"{split}/accuracy/{corruption}": mean for corruption, mean in means.items()}
    metrics |= {f"{split}/corrupted_accuracy": overall}
    run_dir.write_json("metrics.json", {**evaluation.metrics, **metrics})
    columns = [*map(str, SEVERITIES), "mean"]
    grid = [[*accuracies[corruption], means[corruption]] for corruption in accuracies]
    titles = {"row_title": "corruption", "column_title": "severity", "metric": f"{split} accuracy"}
    write_figures(run_dir, {"corruptions": plot_metric_grid(grid, list(accuracies), columns, **titles)})
    report = run_dir.write("report.html", run_page(run_dir.path))  # again, with this figure

    title = f"{split} accuracy by severity: clean {evaluation.metrics[f'{split}/accuracy']:.4f}; mean {overall:.4f}"
    rows = ([name, *(f"{value:.4f}" for value in values)] for name, values in zip(accuracies, grid, strict=True))
    print_table(title, ["corruption", *columns], rows)
    print_line(f"report: {report}")

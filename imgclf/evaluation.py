"""Evaluates a predictor on a split: metrics, predictions and the tables and figures made of them."""

import logging
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from rich import get_console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from imgclf import figures
from imgclf.data.base import SPLITS, ImageDataModule
from imgclf.data.images import Images
from imgclf.metrics import StageMetrics
from imgclf.predict import Predictor, find_images
from imgclf.run_folder import RunFolder

log = logging.getLogger(__name__)

COLUMNS = ["file", "label", "predicted", "class_name", "probability"]  # of predictions.csv


@dataclass
class Evaluation:
    """A split with a predictor's answers.

    Attributes:
        split: its name.
        images: the split as the network saw it, uint8.
        labels: int64 (N,).
        probabilities: float32 (N, classes).
        metrics: "split/name" to value.
    """

    split: str
    images: Images
    labels: Tensor
    probabilities: Tensor
    metrics: dict[str, float]

    @property
    def predicted(self) -> Tensor:
        """int64 (N,)."""
        return self.probabilities.argmax(1)

    def confusion(self) -> Tensor:
        """int64 (classes, classes): rows are true, columns predicted classes."""
        classes = self.probabilities.shape[1]
        return torch.bincount(self.labels * classes + self.predicted, minlength=classes**2).view(classes, classes)


def evaluate(predictor: Predictor, data: ImageDataModule, split: str) -> Evaluation:
    """Evaluates on the split's un-augmented images.

    Raises:
        ValueError: the data has images of another shape, or other classes, than the checkpoint.
    """
    names = list(data.class_names)
    if len(names) != len(predictor.class_names):
        raise ValueError(
            f"the data has {len(names)} classes ({_some(names)}), the checkpoint {len(predictor.class_names)} "
            f"({_some(predictor.class_names)}): evaluate it on data of the same classes"
        )
    if names != predictor.class_names:
        log.warning(
            "the data's classes (%s) have other names than the checkpoint's (%s); they are compared by number",
            _some(names),
            _some(predictor.class_names),
        )
    images = data.evaluated(split)
    logits = torch.cat([predictor.logits(batch) for batch, _ in data.eval_dataloader(split)])
    labels = images.targets
    metrics = StageMetrics(split, len(names))
    metrics.update(F.cross_entropy(logits, labels, reduction="none"), logits.argmax(1), labels)
    values = {name: float(value) for name, value in metrics.compute().items()}
    return Evaluation(split, images, labels, logits.softmax(1), values)


def check_split(split: str) -> None:
    """Raises ValueError unless ``split`` is "train", "val" or "test"."""
    if split not in SPLITS:
        raise ValueError(f"split={split}: choose one of {', '.join(SPLITS)}")


def report(folder: RunFolder, evaluation: Evaluation, class_names: list[str]) -> dict[str, float]:
    """Writes predictions.csv, the figures and metrics.json of an evaluated split, prints and returns the metrics."""
    split, labels = evaluation.split, evaluation.labels
    files = [str(i) for i in range(len(labels))]
    folder.write_csv("predictions.csv", COLUMNS, table(files, labels.tolist(), evaluation.probabilities, class_names))
    for name, figure in result_figures(evaluation, class_names).items():
        folder.write(f"figures/{name}.png", figures.png(figures.render(figure)))
    shown = figures.samples(
        *evaluation.images[:50], class_names, f"{split.capitalize()} images as the network sees them"
    )
    folder.write("figures/samples.png", figures.png(figures.render(shown)))
    folder.write_json("metrics.json", evaluation.metrics)
    console = get_console()
    results = Table(title=f"{split} ({len(labels):,} images)", show_header=False)
    for name, value in evaluation.metrics.items():
        results.add_row(name.removeprefix(f"{split}/"), f"{value:.4f}")
    console.print(results)
    console.print(f"metrics.json, predictions.csv and figures are in {folder.path}", highlight=False, soft_wrap=True)
    return evaluation.metrics


def result_figures(evaluation: Evaluation, class_names: list[str]) -> dict[str, Figure]:
    """Name to figure: what a split's answers look like."""
    e = evaluation
    title = f"{e.split.capitalize()} accuracy {e.metrics[f'{e.split}/accuracy']:.4f}"
    return {
        "confusion_matrix": figures.confusion_matrix(e.confusion(), class_names, title),
        "mistakes": figures.mistakes(e.images, e.labels, e.probabilities, class_names, title),
    }


def predict_files(folder: RunFolder, predictor: Predictor, pattern: str) -> None:
    """Predicts a file, a folder's images or a glob's, and writes predictions.csv.

    Raises:
        FileNotFoundError: nothing matches.
        ValueError: none of the files is a readable image.
    """
    found, images, faults = find_images(pattern), [], []
    for file in found:
        try:
            images.append((file, predictor.tensor(file)))
        except OSError as error:
            faults.append(error)
    for fault in faults:
        log.warning("left out: %s", fault)
    if not images:
        raise ValueError(f"images={pattern}: none of {len(found)} files is a readable image ({faults[0]})")
    probabilities = predictor.probabilities(torch.cat([image for _, image in images]))
    rows = table([str(file) for file, _ in images], [""] * len(images), probabilities, predictor.class_names)
    folder.write_csv("predictions.csv", COLUMNS, rows)
    console = get_console()
    for row in rows[:20]:
        answer = f"{row['file']}: {row['class_name']} ({100 * float(row['probability']):.1f}%)"
        console.print(escape(answer), highlight=False, soft_wrap=True)
    console.print(f"{len(rows)} predictions are in {folder.path / 'predictions.csv'}", highlight=False, soft_wrap=True)


def table(files: list[str], labels: list[int | str], probabilities: Tensor, class_names: list[str]) -> list[dict]:
    """The rows of predictions.csv: an empty label where it is unknown."""
    best = probabilities.max(1)
    return [
        dict(zip(COLUMNS, (file, label, index, class_names[index], f"{probability:.6f}"), strict=True))
        for file, label, index, probability in zip(
            files, labels, best.indices.tolist(), best.values.tolist(), strict=True
        )
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")

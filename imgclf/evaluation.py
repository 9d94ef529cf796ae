"""Evaluates a predictor on a split: metrics, predictions and the tables and figures made of them."""

import csv
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from rich import get_console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from torch import Tensor

from imgclf import figures
from imgclf import seed as seeding
from imgclf.checkpoint import KEY, changed_splits, data_config, read
from imgclf.data.base import ImageDataModule
from imgclf.data.files import find_folder, find_images, printable
from imgclf.data.images import Images
from imgclf.explain import explanations
from imgclf.metrics import StageMetrics, count_metrics, decide, score_metrics
from imgclf.options import SPLITS
from imgclf.predict import Prediction, Predictor
from imgclf.run_folder import RunFolder

log = logging.getLogger(__name__)

# Options of data: where images come from, what divides them into splits, and what a drawn test part depends on.
SOURCE = ("_target_", "dataset", "base", "emnist_split", "root")
DIVISION = ("protocol", "val_fraction", "split_seed", "val_folder", "test_fraction", "group_pattern")
TEST_DIVISION = ("test_fraction", "group_pattern")
SHEET = 120  # images on the contact sheet
COLUMNS = ["file", "label", "predicted", "class_name", "probability"]  # of predictions.csv


@dataclass
class Evaluation:
    """A split with a predictor's answers.

    Attributes:
        split: its name.
        images: the split as the network saw it, uint8.
        labels: int64 (N,).
        losses: float32 (N,).
        probabilities: float32 (N, classes).
        threshold: of two classes, the probability from which the second is predicted.
        names: of the images, N.
        metrics: "split/name" to value.
    """

    split: str
    images: Images
    labels: Tensor
    losses: Tensor
    probabilities: Tensor
    threshold: float
    names: list[str]
    metrics: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        metrics = StageMetrics(self.split, self.probabilities.shape[1])
        metrics.update(self.losses, self.probabilities, self.labels)
        self.metrics = {name: float(value) for name, value in metrics.compute(self.threshold).items()}

    def intervals(self, resamples: int = 1000) -> dict[str, tuple[float, float]]:
        """Name to the bounds of the metric's bootstrap 95% interval (percentiles; Efron 1979), over images."""
        count, classes = self.probabilities.shape
        cells, generator, values = self.labels * classes + self.predicted, seeding.generator("bootstrap"), []
        present = self.labels.unique()
        for _ in range(resamples):
            rows = torch.randint(count, (count,), generator=generator)
            if classes == 2 and len(self.labels[rows].unique()) < len(present):
                continue  # what is asked of both classes is undefined there
            confusion = torch.bincount(cells[rows], minlength=classes**2).view(classes, classes)
            drawn = {"loss": self.losses[rows].mean(), **count_metrics(confusion)}
            if classes == 2:
                drawn |= score_metrics(self.probabilities[rows, 1], self.labels[rows])
            values.append(drawn)
        bounds = torch.tensor([0.025, 0.975], dtype=torch.float64)
        return {
            name: tuple(
                torch.stack([drawn[name.partition("/")[2]] for drawn in values]).double().quantile(bounds).tolist()
            )
            for name in self.metrics
        }

    @property
    def predicted(self) -> Tensor:
        """int64 (N,)."""
        return decide(self.probabilities, self.threshold)

    def confusion(self) -> Tensor:
        """int64 (classes, classes): rows are true, columns predicted classes."""
        classes = self.probabilities.shape[1]
        return torch.bincount(self.labels * classes + self.predicted, minlength=classes**2).view(classes, classes)


def evaluate(predictor: Predictor, data: ImageDataModule, split: str) -> Evaluation:
    """Evaluates on the split's un-augmented images.

    Raises:
        ValueError: the data has images of another shape, or other classes or the same in another order, than the
            checkpoint.
    """
    names = list(data.class_names)
    if len(names) != len(predictor.class_names):
        raise ValueError(
            f"the data has {len(names)} classes ({_some(names)}), the checkpoint {len(predictor.class_names)} "
            f"({_some(predictor.class_names)}): evaluate it on data of the same classes"
        )
    if names != predictor.class_names and set(names) == set(predictor.class_names):
        raise ValueError(
            f"the data's classes ({_some(names)}) come in another order than the checkpoint's "
            f"({_some(predictor.class_names)}): data.positive names the one to be detected"
        )
    if names != predictor.class_names:
        log.warning(
            "the data's classes (%s) have other names than the checkpoint's (%s); they are compared by number",
            _some(names),
            _some(predictor.class_names),
        )
    images = data.evaluated(split)
    logits = torch.cat([predictor.logits(batch) for batch, _ in data.eval_dataloader(split)])
    losses = F.cross_entropy(logits, images.targets, reduction="none")
    probabilities = logits.softmax(1)
    return Evaluation(split, images, images.targets, losses, probabilities, predictor.threshold, data.names(split))


def warn_of_other_data(ckpt: str, data: ImageDataModule) -> None:
    """A line if the data are no longer what the checkpoint was trained with (``changed_splits``)."""
    if changed := changed_splits(read(ckpt)[KEY], data):
        log.warning(
            "the %s images are others than when %s was trained: it may have seen some that it is tested on, and the "
            "metrics do not compare with its own",
            " and ".join(changed),
            ckpt,
        )


def check_split(split: str) -> None:
    """Raises ValueError unless ``split`` is "train", "val" or "test"."""
    if split not in SPLITS:
        raise ValueError(f"split={split}: choose one of {', '.join(SPLITS)}")


def check_unseen(paths: Sequence[str], given: Mapping[str, Any], split: str, own: bool) -> None:
    """Refuses a split that may hold images a checkpoint was trained on, as far as configurations tell.

    Args:
        paths: of the checkpoints.
        given: configuration of the data they are to be evaluated on.
        split: of those.
        own: whether they are the first checkpoint's own, with some options changed.

    Raises:
        ValueError: it may.
    """
    if split != "test" and not own:
        raise ValueError(f"split={split} of other data may hold images the checkpoint was trained on: leave data= out")
    larochelle = given.get("protocol") == "larochelle"  # its test images are among MNIST's 60,000 to train with
    if not own and not larochelle and "root" not in given:
        return
    known = [data_config(path) for path in paths]
    if split != "test" and any(_differing(trained_on, known[0], SOURCE + DIVISION) for trained_on in known):
        raise ValueError(f"split={split} of one network may hold images another was trained on: use split=test")
    for path, trained_on in zip(paths, known, strict=True):
        if larochelle and trained_on.get("protocol") != "larochelle":
            raise ValueError(
                f"data.protocol=larochelle has test images that {path} may have been trained on: leave it out, or "
                "train with it"
            )
        # Data sets come with test images of their own, but a folder's may be drawn.
        same = own or _same_folder(given, trained_on)
        for name in _differing(given, trained_on, DIVISION if split != "test" else TEST_DIVISION) if same else ():
            raise ValueError(
                f"data.{name}={given.get(name)}: the {split} images may be among those that {path} was trained on "
                f"with data.{name}={trained_on.get(name)}: leave it out"
            )


def _differing(one: Mapping[str, Any], other: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [name for name in names if one.get(name) != other.get(name)]


def _same_folder(given: Mapping[str, Any], trained_on: Mapping[str, Any]) -> bool:
    if not (given.get("root") and trained_on.get("root")):
        return False
    try:
        ours, theirs = (find_folder(data["root"], given["data_dir"]) for data in (given, trained_on))
        return ours.samefile(theirs)
    except FileNotFoundError:
        return False


def report(folder: RunFolder, evaluation: Evaluation, predictor: Predictor) -> dict[str, float]:
    """Writes predictions.csv, the figures, intervals.json and metrics.json of a split, prints and returns metrics."""
    e, class_names = evaluation, predictor.class_names
    rows = table(e.names, e.labels.tolist(), predictor.answers(e.probabilities))
    folder.write_csv("predictions.csv", COLUMNS, rows)
    title = f"{e.split.capitalize()} images as the network sees them"
    samples = {"samples": figures.samples(*e.images.examples(), class_names, title)}
    for name, figure in {**samples, **result_figures(e, class_names), **explanations(e, predictor)}.items():
        folder.write(f"figures/{name}.png", figures.png(figures.render(figure)))
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
        "confusion_matrix": figures.confusion_matrix(e.confusion(), class_names, title),
        "mistakes": figures.mistakes(e.images, e.labels, e.predicted, e.probabilities, class_names, title),
    }
    if len(class_names) == 2:
        answers = e.labels, e.probabilities[:, 1], e.threshold
        name = f"{e.split.capitalize()}, {class_names[1]}"
        shown["roc"] = figures.roc(*answers, f"{name}: ROC, area {e.metrics[f'{e.split}/auroc']:.4f}")
        area = e.metrics[f"{e.split}/average_precision"]
        shown["precision_recall"] = figures.precision_recall(*answers, f"{name}: average precision {area:.4f}")
    return shown


def predict_files(folder: RunFolder, predictor: Predictor, pattern: str, images_as: str = "auto") -> dict[str, float]:
    """Predicts a file, a folder's images or a glob's; writes predictions.csv and a contact sheet of what was seen.

    Where labels are known (``known_labels``), metrics.json and a confusion matrix join them; a photograph in which no
    single digit was found counts as wrong.

    Returns:
        metrics.json: "images/count", and of labelled images "images/labelled" and "images/accuracy".

    Raises:
        FileNotFoundError: nothing matches.
        ValueError: none of the files is a readable image.
    """
    found = find_images(pattern)
    files, answers, seen, faults = [], [], [], []
    for file in track(found, "predicting", console=get_console(), transient=True):
        try:
            image, fault = predictor.see(file, images_as)
        except OSError as error:
            faults.append(error)
            continue
        files.append(file)
        answers += predictor.of_seen(image, fault)
        if len(seen) < SHEET:
            seen.append(image[0])
    for fault in faults:
        log.warning("left out: %s", fault)
    if not files:
        raise ValueError(f"images={pattern}: none of {len(found)} files is a readable image ({faults[0]})")
    labels = known_labels(files, predictor.class_names)
    names = ["" if label is None else label for label in labels]
    rows = table([printable(file) for file in files], names, answers)
    folder.write_csv("predictions.csv", COLUMNS, rows)
    metrics = {"images/count": float(len(files))}
    shown = {"predictions": figures.predictions(torch.stack(seen), labels, answers, predictor.class_names)}
    pairs = [(label, a.predicted) for label, a in zip(labels, answers, strict=True) if label is not None]
    if pairs:
        accuracy = sum(label == predicted for label, predicted in pairs) / len(pairs)
        metrics |= {"images/labelled": float(len(pairs)), "images/accuracy": accuracy}
        counts = torch.zeros(len(predictor.class_names), len(predictor.class_names), dtype=torch.int64)
        for label, predicted in pairs:
            if predicted is not None:
                counts[label, predicted] += 1
        title = f"{len(pairs):,} labelled images, accuracy {accuracy:.4f}"
        shown["confusion_matrix"] = figures.confusion_matrix(counts, predictor.class_names, title)
    for name, figure in shown.items():
        folder.write(f"figures/{name}.png", figures.png(figures.render(figure)))
    folder.write_json("metrics.json", metrics)
    console = get_console()
    for row in rows[:20]:
        chance = f" ({100 * float(row['probability']):.1f}%)" if row["probability"] else ""
        console.print(escape(f"{row['file']}: {row['class_name']}{chance}"), highlight=False, soft_wrap=True)
    if pairs:
        console.print(f"accuracy on {len(pairs)} labelled images: {metrics['images/accuracy']:.4f}", highlight=False)
    written = escape(str(folder.path / "predictions.csv"))
    console.print(f"{len(rows)} predictions are in {written}", highlight=False, soft_wrap=True)
    return metrics


def known_labels(files: Sequence[Path], class_names: Sequence[str]) -> list[int | None]:
    """The class index of each file, from a labels.csv (columns file, label) in a folder above it, else from the name of
    the folder it is in; None where neither names a class."""
    tables: dict[Path, dict[Path, str]] = {}
    labels, named = [], set()
    for file in files:
        name = file.parent.name
        for above in file.absolute().parents:
            if above not in tables:
                listing = above / "labels.csv"
                tables[above] = _listed(listing) if listing.is_file() else {}
            if file.absolute() in tables[above]:
                name = tables[above][file.absolute()]
                named.add(name)
                break
        labels.append(class_names.index(name) if name in class_names else None)
    if listings := [str(folder / "labels.csv") for folder, table in tables.items() if table]:
        if not named:
            log.warning("%s: names none of these images (a file is named as seen from its folder)", listings[0])
        elif unknown := sorted(named - set(class_names)):
            log.warning("%s: %s is none of the classes (%s)", listings[0], _some(unknown), _some(list(class_names)))
    return labels


def _listed(listing: Path) -> dict[Path, str]:
    try:
        with listing.open(newline="", encoding="utf-8-sig") as file:
            return {listing.parent / row["file"]: row["label"].strip() for row in csv.DictReader(file)}
    except (KeyError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{listing}: not a table of the columns file and label ({error})") from error


def table(files: list[str], labels: list[int | str], answers: list[Prediction]) -> list[dict]:
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


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")

"""Evaluates a predictor on a split: metrics, predictions and the tables and figures made of them."""

import csv
from collections.abc import Sequence
from pathlib import Path

import torch
from rich import get_console
from rich.markup import escape
from rich.progress import track

from imgclf.core.text import printable, some_names
from imgclf.evaluation.evaluate import log
from imgclf.evaluation.report import PREDICTION_COLUMNS, prediction_rows
from imgclf.figures.classification import plot_confusion_matrix, plot_predictions
from imgclf.figures.style import encode_png, render
from imgclf.imaging.image_files import find_images
from imgclf.inference.predictor import ImagesAs, Predictor
from imgclf.runs.run_dir import RunDir

SHEET = 120  # images on the contact sheet


def predict_files(folder: RunDir, predictor: Predictor, pattern: str, images_as: ImagesAs = "auto") -> dict[str, float]:
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
            image, fault = predictor.preprocess(file, images_as)
        except OSError as error:
            faults.append(error)
            continue
        files.append(file)
        answers += predictor.predict_preprocessed(image, fault)
        if len(seen) < SHEET:
            seen.append(image[0])
    for fault in faults:
        log.warning("left out: %s", fault)
    if not files:
        raise ValueError(f"images={pattern}: none of {len(found)} files is a readable image ({faults[0]})")
    labels = known_labels(files, predictor.class_names)
    names = ["" if label is None else label for label in labels]
    rows = prediction_rows([printable(file) for file in files], names, answers)
    folder.write_csv("predictions.csv", PREDICTION_COLUMNS, rows)
    metrics = {"images/count": float(len(files))}
    shown = {"predictions": plot_predictions(torch.stack(seen), labels, answers, predictor.class_names)}
    pairs = [(label, a.predicted) for label, a in zip(labels, answers, strict=True) if label is not None]
    if pairs:
        accuracy = sum(label == predicted for label, predicted in pairs) / len(pairs)
        metrics |= {"images/labelled": float(len(pairs)), "images/accuracy": accuracy}
        counts = torch.zeros(len(predictor.class_names), len(predictor.class_names), dtype=torch.int64)
        for label, predicted in pairs:
            if predicted is not None:
                counts[label, predicted] += 1
        title = f"{len(pairs):,} labelled images, accuracy {accuracy:.4f}"
        shown["confusion_matrix"] = plot_confusion_matrix(counts, predictor.class_names, title)
    for name, figure in shown.items():
        folder.write(f"figures/{name}.png", encode_png(render(figure)))
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
    if listings := [str(folder / "labels.csv") for folder, prediction_rows in tables.items() if prediction_rows]:
        if not named:
            log.warning("%s: names none of these images (a file is named as seen from its folder)", listings[0])
        elif unknown := sorted(named - set(class_names)):
            log.warning(
                "%s: %s is none of the classes (%s)", listings[0], some_names(unknown), some_names(list(class_names))
            )
    return labels


def _listed(listing: Path) -> dict[Path, str]:
    try:
        with listing.open(newline="", encoding="utf-8-sig") as file:
            return {listing.parent / row["file"]: row["label"].strip() for row in csv.DictReader(file)}
    except (KeyError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"{listing}: not a table of the columns file and label ({error})") from error

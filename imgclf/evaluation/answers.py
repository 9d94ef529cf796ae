"""Reads predictions.csv again: the answers of two networks to the same images."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from imgclf.core.text import below_common_folder, printable, some_names
from imgclf.evaluation.predictions import PREDICTION_COLUMNS

TABLE = "predictions.csv"


class Answers(NamedTuple):
    """The images with a known class that a predictions.csv lists."""

    source: str  # as the user calls it
    class_names: list[str]
    files: list[str]  # the name of each of N images
    labels: Tensor  # int64 (N,)
    predicted: Tensor  # int64 (N,); -1 where there is no answer
    probabilities: Tensor  # float64 (N, classes); NaN where there is no answer

    def select(self, rows: Sequence[int]) -> "Answers":
        """The answers to some of the images."""
        return self._replace(
            files=[self.files[row] for row in rows],
            labels=self.labels[list(rows)],
            predicted=self.predicted[list(rows)],
            probabilities=self.probabilities[list(rows)],
        )


def read_answers(source: str | Path) -> Answers:
    """Reads the predictions.csv of a run folder or of an evaluation, or that file itself.

    Images whose class is not known are left out.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: the table is not one of imgclf, comes from an older version, or knows no classes of its images.
    """
    name, path = printable(source), Path(source).expanduser()
    file = path / TABLE if path.is_dir() else path
    if not file.is_file():
        what = f"there is no {TABLE} in it" if path.is_dir() else "no such file or folder"
        raise FileNotFoundError(f"{name}: {what}; name a finished run, an evaluation or its {TABLE}")
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as table:
        header, *rows = csv.reader(table) if file.stat().st_size else [[]]
    own, others = header[: len(PREDICTION_COLUMNS)], header[len(PREDICTION_COLUMNS) :]
    class_names = [column[2:-1] for column in others if column.startswith("p(") and column.endswith(")")]
    if own != PREDICTION_COLUMNS:
        raise ValueError(f"{name}: not a {TABLE} of imgclf: it does not begin with {','.join(PREDICTION_COLUMNS)}")
    if len(class_names) < 2:
        raise ValueError(f"{name}: an old {TABLE}, without the probabilities p(NAME) of all classes: evaluate it again")
    files, labels, predicted, probabilities = [], [], [], []
    for number, row in enumerate(rows, 2):
        try:
            cells = dict(zip(header, row, strict=True))
            if not cells["label"]:
                continue
            labels.append(class_names.index(cells["label_name"]))
            predicted.append(class_names.index(cells["class_name"]) if cells["predicted"] else -1)
            probabilities.append([float(cells[f"p({each})"] or "nan") for each in class_names])
        except ValueError as error:
            raise ValueError(f"{name}, line {number}: not a row of a {TABLE} of imgclf ({error})") from error
        files.append(cells["file"])
    if not files:
        raise ValueError(f"{name}: it names no image whose true class is known, so there is nothing to compare")
    shares = torch.tensor(probabilities, dtype=torch.float64)
    return Answers(name, class_names, files, torch.tensor(labels), torch.tensor(predicted), shares)


def pair(first: Answers, second: Answers) -> tuple[Answers, Answers]:
    """Brings the second one's images and classes into the order of the first.

    The names of the images count; where they have none in common, their paths below the folder of all of them do.

    Raises:
        ValueError: the classes, the images or their labels are not the same.
    """
    a, b = first.source, second.source
    if set(first.class_names) != set(second.class_names):
        classes = [some_names(answers.class_names) for answers in (first, second)]
        raise ValueError(f"{a} has the classes {classes[0]}, {b} {classes[1]}: compare networks of the same classes")
    keys = [first.files, second.files]
    if not set(keys[0]) & set(keys[1]):
        keys = [below_common_folder(files) for files in keys]
    rows = [{key: row for row, key in enumerate(each)} for each in keys]
    common = rows[0].keys() & rows[1].keys()
    advice = "evaluate both on the same images"
    if not common:
        raise ValueError(f"{a} and {b} have no image in common ({first.files[0]}, {second.files[0]}): {advice}")
    if len(common) < max(len(first.files), len(second.files)):
        sizes = f"{a} has {len(first.files):,} images, {b} {len(second.files):,}"
        raise ValueError(f"{sizes}, and {len(common):,} are in both: {advice}")
    order = [second.class_names.index(name) for name in first.class_names]  # of the second one's classes
    place = torch.tensor([*(order.index(label) for label in range(len(order))), -1])  # the last of -1, no answer
    chosen = second.select([rows[1][key] for key in keys[0]])
    second = Answers(
        source=b,
        class_names=first.class_names,
        files=first.files,
        labels=place[chosen.labels],
        predicted=place[chosen.predicted],
        probabilities=chosen.probabilities[:, order],
    )
    different = (first.labels != second.labels).nonzero().flatten().tolist()
    if different:
        row, names = different[0], first.class_names
        labels = f"{names[first.labels[row]]} in {a}, {names[second.labels[row]]} in {b}"
        raise ValueError(
            f"{len(different):,} of {len(first.files):,} images have other labels (image {first.files[row]}: {labels}):"
            f" {advice}, with the same labels"
        )
    return first, second

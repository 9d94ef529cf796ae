"""Metrics of the parts of a split, such as the images of women and of men."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from imgclf.core.console import print_line, print_table
from imgclf.core.text import below_common_folder, printable
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.folder_scan import natural_key
from imgclf.data.image_folder import ImageFolder
from imgclf.data.label_table import read_cells
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.intervals import bootstrap_intervals
from imgclf.runs.run_dir import RunDir

PRINTED = 30  # values in the terminal
SHOWN = ("sensitivity", "specificity", "auroc")  # in the terminal beside accuracy, where they are defined


def find_subgroups(data: ImageDataModule, split: str, by: str) -> list[str]:
    """Finds what divides the images of a split into parts: the value of ``by`` for each; "" where there is none.

    Args:
        data: image files, of a folder or a table.
        split: "train", "val" or "test".
        by: the name of a column of the table; else a regular expression, which is searched for in the images' paths
            below the folder that they have in common. Its first group counts, or all of the match.

    Raises:
        ValueError: there is no such column, and the expression finds nothing.

    Example:
        >>> find_subgroups(ImageFolder("chest_xray"), "test", "bacteria|virus")[-2:]
        ['bacteria', 'virus']
    """
    if not isinstance(data, ImageFolder):
        raise ValueError(f"by={by}: it is for image files; these images have neither a table nor paths")
    names, known = data.image_names(split), ""
    if data.labels is not None:
        header, rows = read_cells(data.table)
        if by in header:
            row_of = {str(file.path): file.row for files in data.parts.values() for file in files}
            return [rows[row_of[name]][header.index(by)].strip() for name in names]
        known = f"{printable(data.table)} has no such column (it has {', '.join(header)}), and "
    try:
        pattern = re.compile(by)
    except re.error as error:
        raise ValueError(f"by={by}: {known}it is no regular expression ({error})") from error
    matches = [pattern.search(path) for path in below_common_folder(names)]
    if not any(matches):
        raise ValueError(f"by={by}: {known}it is found in no path of an image, such as {printable(names[0])}")
    return ["" if match is None else match[1 if pattern.groups else 0] or "" for match in matches]


def part_of(evaluation: Evaluation, rows: torch.Tensor) -> Evaluation:
    """The evaluation of some of its images, by their indices, int64."""
    places = rows.tolist()
    groups = evaluation.groups and [evaluation.groups[row] for row in places]
    tensors = {name: getattr(evaluation, name)[rows] for name in ("labels", "losses", "probabilities")}
    return replace(evaluation, names=[evaluation.names[row] for row in places], groups=groups, **tensors)


def write_subgroups(run_dir: RunDir, evaluation: Evaluation, values: Sequence[str]) -> list[dict[str, str | float]]:
    """Writes subgroups.csv, the metrics for each value with their 95% intervals, and returns its rows.

    The values are those that ``find_subgroups`` finds, one for each image.
    """
    table: list[dict[str, str | float]] = []
    for value in sorted(set(values), key=natural_key):
        part = part_of(evaluation, torch.tensor([row for row, one in enumerate(values) if one == value]))
        cells: dict[str, str | float] = {"value": printable(value), "images": len(part.labels)}
        for name, (low, high) in bootstrap_intervals(part).items():
            name = name.partition("/")[2]
            cells |= {name: part.metrics[f"{part.split}/{name}"], f"{name}_low": low, f"{name}_high": high}
        table.append(cells)
    run_dir.write_csv("subgroups.csv", list(table[0]), table)
    return table


def print_subgroups(table: Sequence[Mapping[str, str | float]], title: str) -> None:
    """Prints the rows of subgroups.csv: accuracy and, where it is defined, what two classes have."""

    def shown(cells: Mapping[str, str | float], name: str) -> str:
        return "" if math.isnan(float(cells[name])) else f"{cells[name]:.3f}"

    others = [name for name in SHOWN if name in table[0] and any(shown(cells, name) for cells in table)]
    rows = []
    for cells in table[:PRINTED]:
        interval = f"({cells['accuracy_low']:.2f} to {cells['accuracy_high']:.2f})"
        accuracy = f"{shown(cells, 'accuracy')} {interval}"
        value = str(cells["value"]) or "(none)"
        rows.append((value, f"{cells['images']:,}", accuracy, *(shown(cells, name) for name in others)))
    print_table(title, ["value", "images", "accuracy (95%)", *others], rows)
    if len(table) > PRINTED:
        print_line(f"... and {len(table) - PRINTED:,} more values in subgroups.csv")

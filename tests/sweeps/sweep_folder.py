"""Reads what a sweep leaves in its folder."""

import csv


def summary_rows(folder):
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))

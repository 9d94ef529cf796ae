"""Synthetic sheets of paper with one handwritten digit, whose true ink is known: they measure the reading."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.morphology import skeletonize
from skimage.transform import resize
from sklearn.datasets import load_digits

from imgclf.imaging.handwriting import NO_INK, read_digit, to_mnist

HEIGHT, WIDTH = 420, 340  # pixels
PAPERS = (
    "ruled",
    "ruled dark",
    "squared",
    "dense squares",
    "school squares",
    "graph paper scan",
    "crumpled ruled scan",
)
PENS = [(35, 35, 40), (30, 40, 120), (60, 50, 140), (95, 95, 100), (170, 40, 40), (20, 90, 60)]  # RGB
BLUE, VIOLET, GREY = (150, 175, 215), (170, 150, 205), (140, 140, 145)


class Score(NamedTuple):
    """How a digit was read, against its true ink as an image of MNIST.

    Attributes:
        stroke_loss: share of the true ink that is missing; pixels beside found ink do not count as missing.
        line_remains: share of the found ink that is none; pixels beside true ink do not count.
        image: uint8 (28, 28), what was read.
        fault: as of ``imgclf.imaging.handwriting.Digit``.
    """

    stroke_loss: float
    line_remains: float
    image: np.ndarray
    fault: str | None


def score(photo: np.ndarray, ink: np.ndarray) -> Score:
    """Reads a photograph and compares the digit with its true ink, bool (H, W)."""
    digit, true = read_digit(photo), to_mnist(ink) > 127
    if digit.fault:
        return Score(1.0, 0.0, digit.image, digit.fault)
    found, square = digit.image > 127, np.ones((3, 3), bool)
    missing = (true & ~ndimage.binary_dilation(found, square)).sum() / true.sum()
    remains = (found & ~ndimage.binary_dilation(true, square)).sum() / found.sum()
    return Score(float(missing), float(remains), digit.image, None)


def write_on(
    paper: str, digit: np.ndarray | None, random: np.random.Generator, scans: Path
) -> tuple[np.ndarray, np.ndarray]:
    """A photograph of a sheet, uint8 (H, W, 3), and its true ink, bool (H, W).

    Args:
        paper: one of ``PAPERS``.
        digit: an image of MNIST, uint8 (28, 28); None leaves the sheet blank.
        random: draws size, place, pen, ruling, tilt, light, blur and grain.
        scans: the folder of the scanned papers.
    """
    sheet = _paper(paper, random, scans)
    ink = np.zeros((HEIGHT, WIDTH), bool) if digit is None else _strokes(digit, random)
    pen = np.array(PENS[random.integers(len(PENS))]) / 255
    opacity = random.uniform(0.65, 1)
    coverage = ndimage.gaussian_filter(ink.astype(float), random.uniform(0.5, 1.2))[..., None]
    photo = sheet * (1 - opacity * coverage * (1 - pen))
    y, x = np.mgrid[-0.5 : 0.5 : HEIGHT * 1j, -0.5 : 0.5 : WIDTH * 1j]
    photo *= (random.uniform(0.6, 0.95) * (1 + random.uniform(-0.3, 0.3) * y + random.uniform(-0.3, 0.3) * x))[
        ..., None
    ]
    photo = ndimage.gaussian_filter(photo, (*[random.uniform(0, 1)] * 2, 0)) + random.normal(0, 0.012, photo.shape)
    return (photo.clip(0, 1) * 255).astype(np.uint8), ink


def _strokes(digit: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The digit written large with a pen of one width, bool (H, W)."""
    height = random.uniform(0.35, 0.72) * HEIGHT
    rows, columns = np.nonzero(digit.any(1))[0], np.nonzero(digit.any(0))[0]
    cut = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / 255
    scale = min(height / cut.shape[0], 0.8 * WIDTH / cut.shape[1])
    shape = tuple(round(side * scale) for side in cut.shape)
    pen = random.uniform(0.015, 0.08) * shape[0] / 2
    margin = int(pen) + 3
    large = np.pad(resize(np.pad(cut, 1), shape, order=3), margin)
    line = skeletonize(ndimage.gaussian_filter(large, 0.3 * scale) > 0.4)
    written = np.asarray(ndimage.distance_transform_edt(~line)) <= pen
    ink = np.zeros((HEIGHT, WIDTH), bool)
    top, left = (
        int(random.uniform(0, max(1, big - small))) for big, small in zip(ink.shape, written.shape, strict=True)
    )
    written = written[:HEIGHT, :WIDTH]
    ink[top : top + written.shape[0], left : left + written.shape[1]] = written
    return ink


def _paper(paper: str, random: np.random.Generator, scans: Path) -> np.ndarray:
    """The sheet without ink, float (H, W, 3) in [0, 1]."""
    if "scan" in paper:
        file = "graph_scan.jpg" if paper == "graph paper scan" else "ruled_crumpled.jpg"
        scan = Image.open(scans / file).convert("RGB")
        height = min(scan.height, random.uniform(150, 420))
        width = height * WIDTH / HEIGHT
        left, top = random.uniform(0, scan.width - width), random.uniform(0, scan.height - height)
        box = (left, top, left + width, top + height)
        return np.asarray(scan.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box)) / 255
    tilt, bow = random.uniform(-0.05, 0.05), random.uniform(-4, 4)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(float)
    u, v = y + tilt * x + bow * np.cos(x / WIDTH * 3), x - tilt * y + bow * np.cos(y / HEIGHT * 3)
    lines = np.ones((HEIGHT, WIDTH, 3))

    def rule(
        along: np.ndarray, spacing: float, thickness: float, colour: tuple, strength: float, dots: bool = False
    ) -> None:
        distance = np.abs((along + phase) % spacing - spacing / 2)
        covered = (thickness / 2 + 0.5 - distance).clip(0, 1) * strength
        if dots:
            covered *= (x % 6) < 4
        lines[:] *= 1 - covered[..., None] * (1 - np.array(colour) / 255)

    thickness, strength = random.uniform(1, 3), random.uniform(0.6, 1.2)
    colour = (BLUE, VIOLET, GREY)[random.integers(3)]
    phase = random.uniform(0, 1000)
    if paper.startswith("ruled"):
        dark = paper == "ruled dark"
        rule(u, random.uniform(45, 140), thickness, (70, 75, 95) if dark else colour, min(strength, 1))
    elif paper == "school squares":
        spacing = random.uniform(60, 110)
        rule(u, spacing, 2.5, colour, strength)
        rule(v, spacing, 2.5, colour, strength)
        rule(u, spacing / 4, 1.5, colour, 0.6 * strength, dots=True)
    else:
        spacing = random.uniform(45, 100) if paper == "squared" else random.uniform(18, 40)
        rule(u, spacing, thickness if paper == "squared" else min(thickness, 2), colour, strength)
        phase = random.uniform(0, 1000)
        rule(v, spacing, thickness if paper == "squared" else min(thickness, 2), colour, strength)
    return lines.clip(0, 1) * np.array(random.uniform(0.88, 1, 3))


@pytest.mark.parametrize("paper", [paper for paper in PAPERS if "scan" not in paper])
def test_lines_go_and_strokes_stay(paper):
    digits = (load_digits().images[:8] * 15.9).astype(np.uint8)
    scores = []
    for number, digit in enumerate(digits):
        large = np.asarray(Image.fromarray(digit).resize((28, 28), Image.Resampling.BICUBIC))
        scores.append(score(*write_on(paper, large, np.random.default_rng(number), Path())))
    assert np.mean([one.stroke_loss for one in scores]) < 0.15
    assert np.mean([one.line_remains for one in scores]) < 0.1


@pytest.mark.parametrize("paper", [paper for paper in PAPERS if "scan" not in paper])
def test_lines_alone_are_no_digit(paper):
    blank = [write_on(paper, None, np.random.default_rng(number), Path())[0] for number in range(6)]
    assert sum(read_digit(photo).fault != NO_INK for photo in blank) <= 1

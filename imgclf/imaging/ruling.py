"""Estimates the ruling of a sheet: how much light its printed lines take, so that it can be taken off the ink."""

import numpy as np
from scipy import ndimage

MAX_SLOPE, SLOPES = 0.07, 15  # of a line against the picture's side, and how many are tried
MAX_BOW, BOWS = 4, 5  # pixels that the ends of a line lie above or below its middle
COVERED = 0.62  # share of a side that a line covers at least; no stroke of a digit does
MAX_THICKNESS = 10  # pixels; what is thicker is a stroke or a shadow
END = 0.1  # share of a side that counts as its end; a line reaches one, and strokes of a digit seldom do
MIN_LEVEL = 0.025  # of a line's ink strength; fainter ones do no harm


def ruling_strength(ink: np.ndarray) -> np.ndarray:
    """The ink strength of printed lines in both directions; float (h, w), 0 where no line is.

    A line is straight or slightly bowed, runs along most of the picture and has one strength. What is darker than that
    at the same place is ink.

    Args:
        ink: float (h, w), as ``handwriting.ink_strength`` gives it.
    """
    if min(ink.shape) < 16:
        return np.zeros_like(ink)
    return np.maximum(_horizontal_lines(ink), _horizontal_lines(ink.T).T)


def _horizontal_lines(ink: np.ndarray) -> np.ndarray:
    height, width = ink.shape
    # Neighbours stand in for each other, since a line is not exactly a parabola and may be dotted.
    near = ndimage.maximum_filter(ndimage.uniform_filter1d(ink, 5, axis=1), (3, 1))
    x = np.linspace(-1, 1, width)
    curve = np.zeros(width)
    for size in (1, 0.25):  # the second time in small steps around what the first time found
        slopes, bows = np.linspace(-size, size, SLOPES if size == 1 else 5), np.linspace(-size, size, BOWS)
        curves = curve + slopes[:, None, None] * MAX_SLOPE * width / 2 * x + bows[:, None] * MAX_BOW * x**2
        curve = _sharpest(near, curves.reshape(-1, width))
    best = np.round(curve).astype(int)
    straight = _shifted(near, best)
    profile = _profile(straight)
    level = _thin(profile)
    level[level < profile - level] = 0  # a line lies on paper, and not on a dark desk
    end = max(3, round(END * width))
    at_ends = np.stack([_thin(np.median(part, 1)) for part in (straight[:, :end], straight[:, -end:])])
    _, lines = ndimage.label(np.minimum(level, at_ends.max(0)) > MIN_LEVEL)
    level = np.minimum(level, 1.5 * (at_ends.max(0) if lines > 2 else at_ends.min(0)))
    level[level < MIN_LEVEL] = 0
    rows = np.arange(height)[:, None] - best
    return np.where((rows >= 0) & (rows < height), level[rows.clip(0, height - 1)], 0)


def _sharpest(picture: np.ndarray, curves: np.ndarray) -> np.ndarray:
    """The one of curves, float (n, w), along which the picture's lines stand out most."""
    columns = np.arange(0, picture.shape[1], max(1, picture.shape[1] // 32))
    straight = _shifted(picture[:, columns], np.round(curves[:, columns]).astype(int))
    # The mean decides between curves that agree along ``COVERED``.
    scores = sum(np.square(_thin(profile)).sum(1) for profile in (_profile(straight), straight.mean(2)))
    return curves[np.argmax(scores)]


def _shifted(picture: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Every column moved up by its shift: float (..., h, w) for int shifts (..., w)."""
    height, width = picture.shape
    rows = (np.arange(height)[:, None] + shifts[..., None, :]).clip(0, height - 1)
    return picture[rows, np.arange(width)]


def _profile(straight: np.ndarray) -> np.ndarray:
    """What every row takes of the light along ``COVERED`` of its length or more: float (..., h) of (..., h, w)."""
    kept = round((1 - COVERED) * straight.shape[-1])
    return np.partition(straight, kept)[..., kept]


def _thin(profiles: np.ndarray) -> np.ndarray:
    """What lines add to profiles, float (..., h): neither the paper around them nor thick strokes and shadows."""
    return profiles - ndimage.grey_opening(profiles, (*[1] * (profiles.ndim - 1), MAX_THICKNESS))

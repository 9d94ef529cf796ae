"""Finds printed lines in a photograph of handwriting: ruled lines, and frames around the digit.

A mask is bool (h, w), True where there may be ink.
"""

from collections.abc import Callable

import numpy as np
from scipy import ndimage
from skimage.measure import label, regionprops

MAX_THICKNESS = 0.08  # of a line, as a share of the mask's height
FRAME_MARGIN = 0.25  # share of the mask's height within which a side of a frame lies


def find_ruled_lines(mask: np.ndarray) -> np.ndarray:
    """The pixels of lines that run from border to border, without the strokes that cross them; bool (h, w)."""

    def find_horizontal(picture: np.ndarray) -> np.ndarray:
        width = picture.shape[1]
        return _find_straight(picture, lambda top, left, bottom, right: left <= 1 and right >= width - 1)

    return find_horizontal(mask) | find_horizontal(mask.T).T


def remove_frame(mask: np.ndarray) -> np.ndarray:
    """The mask without a printed rectangle around the digit, also where the digit runs into the rectangle."""
    mask = mask.copy()
    for part in regionprops(label(mask, connectivity=2)):
        if _is_frame(part, mask.shape):
            mask[part.slice] &= ~part.image
    sides = [np.rot90(_find_top_side(np.rot90(mask, turns)), -turns) for turns in range(4)]
    if sum(side.any() for side in sides) >= 3:  # one or two may be strokes of a digit that is cut close
        mask &= ~np.logical_or.reduce(sides)
    return mask


def _find_top_side(mask: np.ndarray) -> np.ndarray:
    height, width = mask.shape

    def is_side(top: int, left: int, bottom: int, right: int) -> bool:
        return bottom <= FRAME_MARGIN * height and right - left >= 0.55 * width

    return _find_straight(mask, is_side)


def _is_frame(part, shape: tuple[int, ...]) -> bool:
    """Whether a connected part is a rectangle's outline around most of the picture: it has corners and is empty."""
    height, width = part.image.shape
    if height < 0.7 * shape[0] or width < 0.7 * shape[1]:
        return False
    corner_height, corner_width = max(2, height // 8), max(2, width // 8)
    upper, lower = part.image[:corner_height], part.image[-corner_height:]
    corners = [
        upper[:, :corner_width].any(),
        upper[:, -corner_width:].any(),
        lower[:, :corner_width].any(),
        lower[:, -corner_width:].any(),
    ]
    inside = part.image[height // 6 : -(height // 6), width // 6 : -(width // 6)]
    return sum(corners) >= 3 and inside.sum() < 0.1 * part.area


def _find_straight(mask: np.ndarray, is_accepted: Callable[[int, int, int, int], bool]) -> np.ndarray:
    """The pixels of thin, nearly horizontal lines, except where a stroke crosses them; bool (h, w).

    Args:
        mask: bool (h, w).
        is_accepted: whether a line counts, by top, left, bottom and right of its bounding box.
    """
    height, width = mask.shape
    min_length = max(5, width // 5)
    sides = (0, 0), (min_length, min_length)
    thick = np.pad(ndimage.maximum_filter1d(mask.view(np.uint8), 3, axis=0), sides, mode="edge")
    without_gaps = ndimage.grey_closing(thick, (1, min(min_length, max(3, width // 16))))  # faint lines have gaps
    straight = (ndimage.grey_opening(without_gaps, (1, min_length)) > 0)[:, min_length:-min_length] & mask
    # The mask is cut into vertical runs of pixels. A run through a crossing stroke is longer than the line is thick.
    run_numbers, _ = ndimage.label(mask, [[0, 1, 0]] * 3)
    run_lengths = np.bincount(run_numbers.ravel())
    lines = np.zeros_like(mask)
    for line in regionprops(label(straight, connectivity=2)):
        if not is_accepted(*line.bbox):
            continue
        runs = np.unique(run_numbers[line.slice][line.image])
        thickness = np.median(run_lengths[runs])
        if thickness < MAX_THICKNESS * height:
            lines |= np.isin(run_numbers, runs[run_lengths[runs] <= 1.5 * thickness + 1])
    return lines

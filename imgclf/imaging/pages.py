"""Finds every handwritten digit of a page, in reading order."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from skimage.measure import label, regionprops

from imgclf.imaging.handwriting import to_mnist
from imgclf.imaging.ink import find_ink

PAGE_SIZE = 480  # pixels of the longer side of the page that digits are searched in
MIN_SIZE = 0.025  # share of the longer side; smaller parts are specks
MIN_HEIGHT = 0.5  # of a digit, as a share of the page's usual digit; smaller parts are pieces of one, or dots


class PageDigit(NamedTuple):
    """A digit of a page.

    Attributes:
        image: uint8 (28, 28), as MNIST has digits.
        box: left, top, right and bottom in the photograph's pixels.
    """

    image: np.ndarray
    box: tuple[int, int, int, int]


def find_digits(photo: np.ndarray) -> list[PageDigit]:
    """Finds the digits of a page: line by line, from left to right; none on a blank page.

    Digits that touch each other count as one.

    Args:
        photo: uint8 (H, W) or (H, W, 3).

    Example:
        >>> [digit.box for digit in find_digits(np.asarray(Image.open("page.jpg").convert("RGB")))]
        [(40, 32, 71, 90), (102, 30, 140, 91)]
    """
    mask = find_ink(photo, size=PAGE_SIZE).mask
    parts = regionprops(label(ndimage.binary_dilation(mask), connectivity=2))
    boxes = [np.array(part.bbox) for part in parts if _longer(part.bbox) > MIN_SIZE * PAGE_SIZE]
    if not boxes:
        return []
    usual = np.quantile([_longer(box) for box in boxes], 0.7)
    boxes = _join_pieces(boxes, usual)
    scale = photo.shape[0] / mask.shape[0]
    found = []
    for top, left, bottom, right in _in_reading_order([box for box in boxes if _longer(box) >= MIN_HEIGHT * usual]):
        ink = mask[top:bottom, left:right]
        if not ink.any():
            continue
        box = tuple(round(float(side) * scale) for side in (left, top, right, bottom))
        found.append(PageDigit(to_mnist(ink), box))
    return found


def _longer(box) -> int:
    top, left, bottom, right = box
    return max(bottom - top, right - left)


def _join_pieces(boxes: list[np.ndarray], usual: float) -> list[np.ndarray]:
    """Boxes (top, left, bottom, right); a piece, as the bar of a 5 is, joins the nearest digit."""
    digits = [box for box in boxes if box[2] - box[0] >= MIN_HEIGHT * usual]
    if not digits:
        return boxes
    for piece in boxes:
        if piece[2] - piece[0] >= MIN_HEIGHT * usual:
            continue
        distances = [max(0, *(piece[:2] - digit[2:]), *(digit[:2] - piece[2:])) for digit in digits]
        nearest = int(np.argmin(distances))
        if distances[nearest] < 0.15 * usual:
            digit = digits[nearest]
            digits[nearest] = np.concatenate([np.minimum(piece[:2], digit[:2]), np.maximum(piece[2:], digit[2:])])
    return digits


def _in_reading_order(boxes: list[np.ndarray]) -> list[np.ndarray]:
    """Line by line, left to right: a digit whose middle lies within the line's first digit is in that line."""
    rest, ordered = sorted(boxes, key=lambda box: box[0] + box[2]), []
    while rest:
        top, _, bottom, _ = rest[0]
        line = [box for box in rest if top <= (box[0] + box[2]) / 2 <= bottom]
        ordered += sorted(line, key=lambda box: box[1])
        rest = [box for box in rest if not top <= (box[0] + box[2]) / 2 <= bottom]
    return ordered

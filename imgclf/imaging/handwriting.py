"""Turns a photograph or scan of one handwritten digit into an image as MNIST has them.

LeCun's digits are light ink on black, scaled into a 20x20 box with their aspect kept and centred by mass on 28x28
pixels (LeCun et al. 1998). ``read_digit`` finds the ink of a photograph and does the same to it.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import label, regionprops
from skimage.morphology import disk, skeletonize
from skimage.transform import resize

from imgclf.imaging.ink import SEARCH_SIZE, Ink, find_ink

MNIST_SIZE, MNIST_BOX = 28, 20  # pixels, the sides of MNIST's images and of the box that holds their digits
MNIST_STROKE_WIDTH = 2.6  # pixels; thinner strokes are thickened to it
MAX_PARTS = 8  # of ink around a digit; grain, print and crumpled paper have more
MIN_SHARE = 0.6  # of the ink, which a digit has at least where there are more parts
FLAT, LINE_LIKE = 4, 12  # the sides' ratio from which a lying part is no digit, and on ruled paper any part
CLOSE_LOOK_BELOW = 0.4  # a digit smaller than this share of the picture is searched again in a part of the picture
NO_INK, SEVERAL_DIGITS = "no ink found", "several digits"


@dataclass(frozen=True)
class Digit:
    """The digit of a photograph.

    Attributes:
        image: uint8 (28, 28), light ink on black; black where no single digit was found.
        fault: why there is no single digit, "no ink found" or "several digits"; otherwise None.
    """

    image: np.ndarray
    fault: str | None = None


def read_digit(photo: np.ndarray) -> Digit:
    """Finds the one digit of a photograph.

    The ink may be dark on light or light on dark, of any colour, under uneven light. Frames, ruled lines, specks and
    strokes that reach in from the border are left out.

    Args:
        photo: uint8 (H, W) or (H, W, 3).

    Example:
        >>> digit = read_digit(np.asarray(Image.open("seven.jpg").convert("RGB")))
        >>> digit.image.shape, digit.fault
        ((28, 28), None)
    """
    found = find_ink(photo)
    ink, fault = _choose_digit(found)
    if fault:
        return Digit(np.zeros((MNIST_SIZE, MNIST_SIZE), np.uint8), fault)
    rows, columns = np.nonzero(ink.any(1))[0], np.nonzero(ink.any(0))[0]
    size = max(np.ptp(rows), np.ptp(columns)) + 1
    if size < CLOSE_LOOK_BELOW * SEARCH_SIZE < CLOSE_LOOK_BELOW * max(photo.shape[:2]):
        margin = 0.35 * size
        top, left = max(0, int(rows[0] - margin)), max(0, int(columns[0] - margin))
        bottom, right = int(rows[-1] + 1 + margin), int(columns[-1] + 1 + margin)
        scale = photo.shape[0] / ink.shape[0]
        cut = photo[int(top * scale) : int(bottom * scale), int(left * scale) : int(right * scale)]
        part = np.s_[top:bottom, left:right]
        closer, fault = _choose_digit(find_ink(cut, Ink(ink[part], found.lines[part], found.ruling[part])))
        ink = ink if fault else closer
    return Digit(to_mnist(ink))


def _choose_digit(ink: Ink) -> tuple[np.ndarray, str | None]:
    """The ink of the one digit, bool (h, w), and why there is none, or None."""
    chosen = np.zeros_like(ink.mask)
    parts = _digit_parts(ink.mask)
    digit = next((part for part in parts if not _is_line(part, is_ruled=bool(ink.ruling.any()))), None)
    if digit is None:
        return chosen, NO_INK
    others = [part for part in parts if part is not digit and not _touches_border(part, ink.mask.shape)]
    if any(_is_another_digit(other, digit) for other in others):
        return chosen, SEVERAL_DIGITS
    for part in [digit, *(other for other in others if _is_piece(other, digit))]:
        chosen[part.slice] |= part.image
    chosen &= ink.mask
    if len(parts) > MAX_PARTS and chosen.sum() < MIN_SHARE * ink.mask.sum():
        return np.zeros_like(chosen), NO_INK
    return chosen, None


def _digit_parts(mask: np.ndarray) -> list:
    """The connected parts that can belong to a digit, the likeliest first: large, near the middle, off the border."""
    height, width = mask.shape
    scored = []
    for part in regionprops(label(ndimage.binary_dilation(mask), connectivity=2)):
        if part.area < 12 or _size(part) < 0.06 * max(mask.shape):
            continue
        y, x = part.centroid
        off_centre = np.hypot((y - height / 2) / height, (x - width / 2) / width)
        off_border = 0.35 if _touches_border(part, mask.shape) else 1.0
        scored.append((_size(part) * np.sqrt(part.area) * off_border * (1.2 - off_centre), part))
    parts = [part for _, part in sorted(scored, key=lambda item: -item[0])]
    # The desk beside the sheet, or a shadow, lies along a border. So may the stroke of a digit that is cut close.
    inner = [part for part in parts if not _lies_along_border(part, mask.shape)]
    return inner if inner and _size(inner[0]) > 0.2 * max(mask.shape) else parts


def _lies_along_border(part, shape: tuple[int, int]) -> bool:
    if min(shape) < 4:
        return False
    whole = np.zeros(shape, bool)
    whole[part.slice] = part.image
    return max(edge.mean() for edge in (whole[1], whole[-2], whole[:, 1], whole[:, -2])) > 0.5


def _is_line(part, is_ruled: bool) -> bool:
    """Whether a part is no digit by itself, but the bar of one or what is left of a printed line."""
    height, width = part.image.shape
    return width > FLAT * height or (is_ruled and height > LINE_LIKE * width)


def _size(part) -> int:
    top, left, bottom, right = part.bbox
    return max(bottom - top, right - left)


def _touches_border(part, shape: tuple[int, int]) -> bool:
    top, left, bottom, right = part.bbox
    return top <= 1 or left <= 1 or bottom >= shape[0] - 1 or right >= shape[1] - 1


def _is_another_digit(other, digit) -> bool:
    """Whether a part is a digit of its own: it is about as large as the digit, and beside it."""
    top, left, bottom, right = digit.bbox
    other_top, other_left, other_bottom, other_right = other.bbox
    if other_bottom - other_top < 0.6 * (bottom - top) or other.area < 0.25 * digit.area:
        return False
    if _gap(other, digit) < 0.1 * _size(digit):  # the flag of a 1 apart from its stem
        return False
    overlap = min(right, other_right) - max(left, other_left)
    return overlap < 0.2 * min(right - left, other_right - other_left)


def _gap(other, digit) -> float:
    """Pixels between the nearest points of two parts."""
    distances, _ = KDTree(digit.coords).query(other.coords)
    return float(distances.min())


def _is_piece(other, digit) -> bool:
    """Whether a part is a piece of the digit: it is near the digit, as the bar of a 5 is."""
    top, left, bottom, right = digit.bbox
    other_top, other_left, other_bottom, other_right = other.bbox
    distance = max(other_top - bottom, top - other_bottom, other_left - right, left - other_right)
    # The part that counts as the digit may be the smaller one: the bar of a broken 5.
    both = max(max(bottom, other_bottom) - min(top, other_top), max(right, other_right) - min(left, other_left))
    return distance < 0.2 * both and _size(other) > 0.12 * _size(digit)


def to_mnist(ink: np.ndarray) -> np.ndarray:
    """The digit with ink where ``ink``, bool (h, w) and not empty, is True, as MNIST has it: uint8 (28, 28).

    The digit is scaled to a 20x20 box, its strokes are thickened to MNIST's, and it is centred by mass.
    """
    rows, columns = np.nonzero(ink.any(1))[0], np.nonzero(ink.any(0))[0]
    strokes = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = MNIST_BOX / max(strokes.shape)
    distances = np.asarray(ndimage.distance_transform_edt(np.pad(strokes, 1)))[1:-1, 1:-1]
    stroke_width = 2 * distances[skeletonize(strokes)].mean() * scale
    if stroke_width < MNIST_STROKE_WIDTH:
        grow = round((MNIST_STROKE_WIDTH - stroke_width) / 2 / scale)
        strokes = ndimage.binary_dilation(np.pad(strokes, grow), disk(grow)) if grow else strokes
        scale = MNIST_BOX / max(strokes.shape)
    height, width = (max(1, round(side * scale)) for side in strokes.shape)
    small = resize(strokes.astype(np.float32), (height, width), order=1, anti_aliasing=True).clip(0, 1)
    y, x = np.array(ndimage.center_of_mass(small))
    top = int(np.clip(round((MNIST_SIZE - 1) / 2 - y), 0, MNIST_SIZE - height))
    left = int(np.clip(round((MNIST_SIZE - 1) / 2 - x), 0, MNIST_SIZE - width))
    image = np.zeros((MNIST_SIZE, MNIST_SIZE), np.float32)
    image[top : top + height, left : left + width] = small
    return (image / max(image.max(), 1e-6) * 255).round().astype(np.uint8)

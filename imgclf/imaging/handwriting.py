"""Turns a photograph or scan of one handwritten digit into an image as MNIST has them.

LeCun's digits are light ink on black, scaled into a 20x20 box with their aspect kept and centred by mass on 28x28
pixels (LeCun et al. 1998). ``read_digit`` finds the ink of a photograph and does the same to it.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.filters import apply_hysteresis_threshold, threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import disk, skeletonize
from skimage.transform import resize

from imgclf.imaging.ruled_lines import find_ruled_lines, remove_frame
from imgclf.imaging.ruling import MIN_LEVEL, ruling_strength

SEARCH_SIZE = 192  # pixels of the longer side of the picture that ink is searched in
MNIST_SIZE, MNIST_BOX = 28, 20  # pixels, the sides of MNIST's images and of the box that holds their digits
MNIST_STROKE_WIDTH = 2.6  # pixels; thinner strokes are thickened to it
MIN_CONTRAST = 0.1  # of ink, relative to the paper; anything fainter is not ink
ON_LINE = 1.1  # times a line's strength is taken off the ink on it
LINE_REMAINS = 0.6  # ink is stronger than this share of the strongest line; less may be what is left of lines
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


@dataclass(frozen=True)
class _Search:
    """What a search of a photograph found; the longer side of the masks has ``SEARCH_SIZE`` pixels.

    Attributes:
        ink: bool (h, w), the digit's ink.
        lines: bool (h, w), frames and ruled lines whose pixels are no ink.
        ruling: float (h, w), the strength of ruled lines, which was taken off the ink.
        fault: as of ``Digit``.
    """

    ink: np.ndarray
    lines: np.ndarray
    ruling: np.ndarray
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
    search = _search(photo)
    if search.fault:
        return Digit(np.zeros((MNIST_SIZE, MNIST_SIZE), np.uint8), search.fault)
    ink = search.ink
    rows, columns = np.nonzero(ink.any(1))[0], np.nonzero(ink.any(0))[0]
    size = max(np.ptp(rows), np.ptp(columns)) + 1
    if size < CLOSE_LOOK_BELOW * SEARCH_SIZE < CLOSE_LOOK_BELOW * max(photo.shape[:2]):
        margin = 0.35 * size
        top, left = max(0, int(rows[0] - margin)), max(0, int(columns[0] - margin))
        bottom, right = int(rows[-1] + 1 + margin), int(columns[-1] + 1 + margin)
        scale = photo.shape[0] / ink.shape[0]
        cut = photo[int(top * scale) : int(bottom * scale), int(left * scale) : int(right * scale)]
        part = np.s_[top:bottom, left:right]
        closer = _search(cut, _Search(ink[part], search.lines[part], search.ruling[part]))
        ink = ink if closer.fault else closer.ink
    return Digit(to_mnist(ink))


def _search(photo: np.ndarray, known: _Search | None = None) -> _Search:
    """Searches a photograph for the ink of one digit.

    Args:
        photo: as of ``read_digit``.
        known: what a search of the whole picture found in this part, which shows its lines cut off.
    """
    ink = ink_strength(photo)
    ruling = ruling_strength(ink)
    if known is not None:
        ruling = np.maximum(ruling, resize(known.ruling, ink.shape, order=1))
    ruled = ruling > MIN_LEVEL
    with_lines = ndimage.gaussian_filter(ink, 0.7)
    smooth = np.where(ruled, (with_lines - ON_LINE * ruling).clip(0), with_lines)
    strongest = np.quantile(smooth, 0.998)
    paper = smooth[~ruled] if ruled.mean() < 0.9 else smooth
    noise = 1.4826 * np.median(np.abs(paper - np.median(paper)))
    nothing = np.zeros(ink.shape, bool)
    if strongest < max(MIN_CONTRAST, np.median(paper) + 6 * noise, LINE_REMAINS * ruling.max()):
        return _Search(nothing, nothing, ruling, NO_INK)
    high = max(threshold_otsu(smooth.clip(0, strongest)), 0.35 * strongest, 0.7 * MIN_CONTRAST)
    mask = apply_hysteresis_threshold(smooth, 0.6 * high, high)
    faint = smooth > max(0.2 * strongest, np.median(smooth) + 4 * noise)
    if ruled.any():  # strokes go on where they cross a line
        dark = with_lines > 0.6 * high
        mask |= ndimage.binary_closing(np.pad(mask, 4), disk(3))[4:-4, 4:-4] & ruled & dark
    lines = find_ruled_lines(faint) | find_ruled_lines(mask)
    if (
        lines.any() and not ruled.any() and np.median(smooth[lines]) < 0.5 * strongest
    ):  # most ruled lines are fainter than the ink
        mask &= apply_hysteresis_threshold(smooth, 0.48 * strongest, 0.6 * strongest)
    lines |= mask & ~remove_frame(mask)
    if known is not None:
        lines |= resize(known.lines.astype(np.float32), ink.shape, order=1) > 0.5
    mask &= ~lines
    parts = _digit_parts(mask)
    if not parts:
        return _Search(nothing, lines, ruling, NO_INK)
    digit, others = parts[0], [part for part in parts[1:] if not _touches_border(part, mask.shape)]
    if any(_is_another_digit(other, digit) for other in others):
        return _Search(nothing, lines, ruling, SEVERAL_DIGITS)
    chosen = np.zeros_like(mask)
    for part in [digit, *(other for other in others if _is_piece(other, digit))]:
        chosen[part.slice] |= part.image
    return _Search(chosen & mask, lines, ruling)


def ink_strength(photo: np.ndarray) -> np.ndarray:
    """How much light the ink takes from the paper or, on a dark ground, adds to it; float (h, w) in [0, 1].

    The longer side becomes ``SEARCH_SIZE`` pixels. The paper's light is estimated locally in each colour. The colour
    with the strongest ink counts.
    """
    image = photo.astype(np.float32) / 255
    image = image[..., None] if image.ndim == 2 else image
    scale = SEARCH_SIZE / max(image.shape[:2])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    image = resize(image, (height, width, image.shape[2]), order=1, anti_aliasing=scale < 1)
    middle = np.median(image, (0, 1))
    # Most pixels show the paper. If the lighter pixels differ from it more than the darker ones, they are the ink.
    if (image - middle).max() > (middle - image).max() and middle.mean() < 0.5:
        image = 1 - image
    paper = np.stack([_paper_light(channel) for channel in np.moveaxis(image, 2, 0)], 2)
    return ((paper - image) / paper.clip(0.05)).max(2).clip(0, 1)


def _paper_light(channel: np.ndarray) -> np.ndarray:
    """The light of the paper without ink, float (h, w): strokes are closed, then smoothed away."""
    small = resize(channel, tuple(max(1, side // 4) for side in channel.shape), order=1, anti_aliasing=True)
    size = max(3, max(small.shape) // 4)
    closed = ndimage.percentile_filter(small, 80, size=size, mode="nearest")
    smooth = ndimage.gaussian_filter(closed, size / 3, mode="nearest")
    return resize(smooth, channel.shape, order=1)


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
    if _gap(other, digit) < 0.06 * _size(digit):  # the flag of a 1 apart from its stem
        return False
    overlap = min(right, other_right) - max(left, other_left)
    return overlap < 0.2 * min(right - left, other_right - other_left)


def _gap(other, digit) -> float:
    """Pixels between the nearest points of two parts."""
    distances, _ = cKDTree(digit.coords).query(other.coords)
    return float(distances.min())


def _is_piece(other, digit) -> bool:
    """Whether a part is a piece of the digit: it is near the digit, as the bar of a 5 is."""
    top, left, bottom, right = digit.bbox
    other_top, other_left, other_bottom, other_right = other.bbox
    distance = max(other_top - bottom, top - other_bottom, other_left - right, left - other_right)
    return distance < 0.2 * _size(digit) and _size(other) > 0.12 * _size(digit)


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

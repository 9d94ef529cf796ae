"""From a photograph or scan of one handwritten digit to an image as MNIST has them.

LeCun's digits are light ink on black, scaled into a 20x20 box with their aspect kept and centred by mass on 28x28
pixels (LeCun et al. 1998). ``read_digit`` finds the ink of a photograph and does the same to it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold, threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import disk, skeletonize
from skimage.transform import resize

WORKING = 192  # pixels of the longer side that the ink is looked for at
CANVAS, BOX = 28, 20  # pixels of MNIST's images, and of their digits
LEAST_CONTRAST = 0.12  # of ink against paper, relative: fainter is none
PEN = 2.6  # pixels, the width of MNIST's strokes; thinner ones are thickened to it
THIN = 0.08  # of the height: lines are not thicker
EDGE = 0.25  # of the height: sides of a frame are not farther from the border
NO_INK, SEVERAL = "no ink found", "several digits"


@dataclass(frozen=True)
class Digit:
    """What was found in a photograph.

    Attributes:
        canvas: uint8 (28, 28), light ink on black; black where no single digit was found.
        fault: None; or why there is no single digit: "no ink found" or "several digits".
    """

    canvas: np.ndarray
    fault: str | None = None


def read_digit(photo: np.ndarray) -> Digit:
    """Finds the one digit of a photograph.

    Ink may be dark on light or light on dark, of any colour, under uneven light; frames and ruled lines are removed,
    strokes that reach in from the border and specks are left out.

    Args:
        photo: uint8 (H, W) or (H, W, 3).
    """
    found, lines, fault = _find(photo)
    if fault:
        return Digit(np.zeros((CANVAS, CANVAS), np.uint8), fault)
    rows, columns = np.nonzero(found.any(1))[0], np.nonzero(found.any(0))[0]
    size = max(np.ptp(rows), np.ptp(columns)) + 1
    if size < 0.4 * WORKING < 0.4 * max(photo.shape[:2]):  # a small digit: look closer
        scale, margin = photo.shape[0] / found.shape[0], 0.35 * size
        top, left = (max(0, int(line[0] - margin)) for line in (rows, columns))
        bottom, right = (int(line[-1] + 1 + margin) for line in (rows, columns))
        cut = tuple(slice(int(a * scale), int(b * scale)) for a, b in ((top, bottom), (left, right)))
        nearer, _, fault = _find(photo[cut], lines[top:bottom, left:right])
        found = found if fault else nearer
    return Digit(centre(found))


def _find(photo: np.ndarray, known_lines: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Where the digit's ink is and where frames and lines are, both bool (h, w), the longer side ``WORKING``; and why
    there is no single digit, or None.

    Args:
        photo: as of ``read_digit``.
        known_lines: frames and lines found already, bool, of any size; a close look does not see them whole.
    """
    ink = ink_strength(photo)
    smooth = ndimage.gaussian_filter(ink, 0.7)
    strongest = np.quantile(smooth, 0.998)
    noise = 1.4826 * np.median(np.abs(smooth - np.median(smooth)))
    nothing = np.zeros(ink.shape, bool)
    if strongest < max(LEAST_CONTRAST, np.median(smooth) + 6 * noise):
        return nothing, nothing, NO_INK
    high = max(threshold_otsu(smooth.clip(0, strongest)), 0.35 * strongest, 0.7 * LEAST_CONTRAST)
    mask = apply_hysteresis_threshold(smooth, 0.6 * high, high)
    faint = smooth > max(0.2 * strongest, np.median(smooth) + 4 * noise)
    lines = _lines(faint) | _lines(mask)
    if (
        lines.any() and np.median(smooth[lines]) < 0.5 * strongest
    ):  # ruled lines are fainter than ink more often than not
        mask &= apply_hysteresis_threshold(smooth, 0.48 * strongest, 0.6 * strongest)
    lines |= mask & ~_without_frame(mask)
    if known_lines is not None:
        lines |= resize(known_lines.astype(np.float32), ink.shape, order=1) > 0.5
    mask &= ~lines
    parts = _parts(mask)
    if not parts:
        return nothing, lines, NO_INK
    digit, others = parts[0], [part for part in parts[1:] if not _touches(part, mask.shape)]
    if any(_is_digit(other, digit) for other in others):
        return nothing, lines, SEVERAL
    chosen = np.zeros_like(mask)
    for part in [digit, *(other for other in others if _belongs(other, digit))]:
        chosen[part.slice] |= part.image
    return chosen & mask, lines, None


def ink_strength(photo: np.ndarray) -> np.ndarray:
    """How much light the ink takes from (or, on a dark ground, adds to) the ground, float (h, w) in [0, 1].

    The longer side becomes ``WORKING`` pixels. The ground is taken locally in each colour; the strongest colour counts.
    """
    image = photo.astype(np.float32) / 255
    image = image[..., None] if image.ndim == 2 else image
    scale = WORKING / max(image.shape[:2])
    shape = tuple(max(1, round(side * scale)) for side in image.shape[:2])
    image = resize(image, (*shape, image.shape[2]), order=1, anti_aliasing=scale < 1)
    middle = np.median(image, (0, 1))
    # The ground is what most pixels show. Where its opposite is rarer and stronger, that is the ink.
    if (image - middle).max() > (middle - image).max() and middle.mean() < 0.5:
        image = 1 - image
    ground = np.stack([_ground(channel) for channel in np.moveaxis(image, 2, 0)], 2)
    return ((ground - image) / ground.clip(0.05)).max(2).clip(0, 1)


def _ground(channel: np.ndarray) -> np.ndarray:
    """The light without ink: strokes closed, then smoothed."""
    small = resize(channel, tuple(max(1, side // 4) for side in channel.shape), order=1, anti_aliasing=True)
    size = max(3, max(small.shape) // 4)
    closed = ndimage.percentile_filter(small, 80, size=size, mode="nearest")
    smooth = ndimage.gaussian_filter(closed, size / 3, mode="nearest")
    return resize(smooth, channel.shape, order=1)


def _without_frame(mask: np.ndarray) -> np.ndarray:
    """The mask without a printed rectangle around the digit, also where the digit runs into it."""
    mask = mask.copy()
    for part in regionprops(label(mask, connectivity=2)):
        if _is_frame(part, mask.shape):
            mask[part.slice] &= ~part.image
    sides = []
    for turns in range(4):
        turned = np.rot90(mask, turns)
        height, width = turned.shape
        side = _straight(turned, lambda t, l, b, r, h=height, w=width: b <= EDGE * h and r - l >= 0.55 * w)  # noqa: E741
        sides.append(np.rot90(side, -turns))
    if sum(side.any() for side in sides) >= 3:  # one or two may be strokes of a digit that is cut close
        mask &= ~np.logical_or.reduce(sides)
    return mask


def _is_frame(part, shape: tuple[int, int]) -> bool:
    """Whether a connected part is a rectangle's outline around most of the picture: it has corners and is empty."""
    height, width = part.image.shape
    if height < 0.7 * shape[0] or width < 0.7 * shape[1]:
        return False
    near_y, near_x = max(2, height // 8), max(2, width // 8)
    corners = [part.image[y, x].any() for y in np.s_[:near_y, -near_y:] for x in np.s_[:near_x, -near_x:]]
    inside = part.image[height // 6 : -(height // 6), width // 6 : -(width // 6)]
    return sum(corners) >= 3 and inside.sum() < 0.1 * part.area


def _lines(mask: np.ndarray) -> np.ndarray:
    """The pixels of ruled lines, from border to border, without the strokes that cross them."""

    def across(picture: np.ndarray) -> np.ndarray:
        width = picture.shape[1]
        return _straight(picture, lambda top, left, bottom, right: left <= 1 and right >= width - 1)

    return across(mask) | across(mask.T).T


def _straight(mask: np.ndarray, accepted: Callable[[int, int, int, int], bool]) -> np.ndarray:
    """The pixels of thin, nearly horizontal lines with an ``accepted`` bounding box, where nothing crosses them."""
    height, width = mask.shape
    run = np.ones((1, max(5, width // 5)), bool)
    wide = np.pad(ndimage.binary_dilation(mask, np.ones((3, 1), bool)), ((0, 0), (run.size, run.size)), mode="edge")
    wide = ndimage.binary_closing(wide, run[:, : max(3, width // 16)])  # faint lines have gaps
    straight = ndimage.binary_opening(wide, run)[:, run.size : -run.size] & mask
    # Vertical runs of pixels: one through a stroke is longer than the line is thick.
    upright, _ = ndimage.label(mask, [[0, 1, 0]] * 3)
    lengths = np.bincount(upright.ravel())
    lines = np.zeros_like(mask)
    for line in regionprops(label(straight, connectivity=2)):
        if not accepted(*line.bbox):
            continue
        runs = np.unique(upright[line.slice][line.image])
        thickness = np.median(lengths[runs])
        if thickness < THIN * height:
            lines |= np.isin(upright, runs[lengths[runs] <= 1.5 * thickness + 1])
    return lines


def _parts(mask: np.ndarray) -> list:
    """The connected parts that can belong to a digit, the likeliest first: large, near the middle, off the border."""
    height, width = mask.shape
    found = []
    for part in regionprops(label(ndimage.binary_dilation(mask), connectivity=2)):
        if part.area < 12 or _size(part) < 0.06 * max(mask.shape):
            continue
        y, x = part.centroid
        off = np.hypot((y - height / 2) / height, (x - width / 2) / width)
        likely = 0.35 if _touches(part, mask.shape) else 1.0
        found.append((_size(part) * np.sqrt(part.area) * likely * (1.2 - off), part))
    parts = [part for _, part in sorted(found, key=lambda item: -item[0])]
    # The desk beside the sheet or a shadow lies along a border; but so may the stroke of a digit that is cut close.
    inner = [part for part in parts if not _lines_border(part, mask.shape)]
    return inner if inner and _size(inner[0]) > 0.2 * max(mask.shape) else parts


def _lines_border(part, shape: tuple[int, int]) -> bool:
    if min(shape) < 4:
        return False
    whole = np.zeros(shape, bool)
    whole[part.slice] = part.image
    return max(edge.mean() for edge in (whole[1], whole[-2], whole[:, 1], whole[:, -2])) > 0.5


def _size(part) -> int:
    top, left, bottom, right = part.bbox
    return max(bottom - top, right - left)


def _touches(part, shape: tuple[int, int]) -> bool:
    top, left, bottom, right = part.bbox
    return top <= 1 or left <= 1 or bottom >= shape[0] - 1 or right >= shape[1] - 1


def _is_digit(other, digit) -> bool:
    """Whether another part is a digit of its own: as large, and beside the first or above it, not part of it."""
    top, left, bottom, right = digit.bbox
    t, l, b, r = other.bbox  # noqa: E741
    if b - t < 0.6 * (bottom - top) or other.area < 0.25 * digit.area:
        return False
    return min(right, r) - max(left, l) < 0.2 * min(right - left, r - l)


def _belongs(other, digit) -> bool:
    """Whether a part is a piece of the digit: near it, as the bar of a 5 is."""
    top, left, bottom, right = digit.bbox
    t, l, b, r = other.bbox  # noqa: E741
    reach = 0.2 * _size(digit)
    apart = max(t - bottom, top - b, l - right, left - r)
    return apart < reach and _size(other) > 0.12 * _size(digit)


def centre(mask: np.ndarray) -> np.ndarray:
    """Ink at ``mask``, bool (h, w) and not empty, as MNIST has it: uint8 (28, 28), in a 20x20 box, centred by mass."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    strokes = mask[cut]
    scale = BOX / max(strokes.shape)
    skeleton = skeletonize(strokes)
    width = 2 * ndimage.distance_transform_edt(np.pad(strokes, 1))[1:-1, 1:-1][skeleton].mean() * scale  # pyrefly: ignore[bad-index, unsupported-operation]
    if width < PEN:
        grow = round((PEN - width) / 2 / scale)
        strokes = ndimage.binary_dilation(np.pad(strokes, grow), disk(grow)) if grow else strokes
        scale = BOX / max(strokes.shape)
    shape = tuple(max(1, round(side * scale)) for side in strokes.shape)
    small = resize(strokes.astype(np.float32), shape, order=1, anti_aliasing=True).clip(0, 1)
    y, x = np.array(ndimage.center_of_mass(small))
    canvas = np.zeros((CANVAS, CANVAS), np.float32)
    top = int(np.clip(round((CANVAS - 1) / 2 - y), 0, CANVAS - shape[0]))
    left = int(np.clip(round((CANVAS - 1) / 2 - x), 0, CANVAS - shape[1]))
    canvas[top : top + shape[0], left : left + shape[1]] = small
    return (canvas / max(canvas.max(), 1e-6) * 255).round().astype(np.uint8)

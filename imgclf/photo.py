"""From a photograph or scan of one handwritten digit to an image as MNIST has them.

LeCun's digits are light ink on black, scaled into a 20x20 box with their aspect kept and centred by mass on 28x28
pixels (LeCun et al. 1998). ``read_digit`` finds the ink of a photograph and does the same to it.
"""

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
BLOB = 0.1  # of the width: what reaches in from the border and is thicker than twice this is no stroke
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
    ink = ink_strength(photo)
    empty = np.zeros((CANVAS, CANVAS), np.uint8)
    mask = _mask(ink)
    if mask is None:
        return Digit(empty, NO_INK)
    parts = _parts(_without_lines(mask))
    if not parts:
        return Digit(empty, NO_INK)
    digit, others = parts[0], [part for part in parts[1:] if not _touches(part, mask.shape)]
    if any(_is_digit(other, digit) for other in others):
        return Digit(empty, SEVERAL)
    chosen = np.zeros_like(mask)
    for part in [digit, *(other for other in others if _belongs(other, digit))]:
        chosen[part.slice] |= part.image
    return Digit(centre(chosen, ink))


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


def _mask(ink: np.ndarray) -> np.ndarray | None:
    """Where there is ink: bool (h, w); None if there is none."""
    smooth = ndimage.gaussian_filter(ink, 0.7)
    strongest = np.quantile(smooth, 0.998)
    if strongest < LEAST_CONTRAST:
        return None
    high = max(threshold_otsu(smooth.clip(0, strongest)), 0.35 * strongest, 0.7 * LEAST_CONTRAST)
    noise = 1.4826 * np.median(np.abs(smooth - np.median(smooth)))
    if strongest < np.median(smooth) + 6 * noise:
        return None
    return apply_hysteresis_threshold(smooth, 0.6 * high, high)


def _without_lines(mask: np.ndarray) -> np.ndarray:
    """The mask without a printed frame and without ruled lines; strokes that crossed a line are joined again."""
    found = label(mask, connectivity=2)
    mask = mask.copy()
    for part in regionprops(found):
        if _is_frame(part, mask.shape):
            mask[part.slice] &= ~part.image
    lines = _ruled(mask) | _ruled(mask.T).T
    if not lines.any():
        return mask
    rest = mask & ~ndimage.binary_dilation(lines, disk(1))
    joined = ndimage.binary_closing(np.pad(rest, 4), disk(3))[4:-4, 4:-4]
    return rest | (joined & lines)


def _is_frame(part, shape: tuple[int, int]) -> bool:
    """Whether a connected part is a rectangle's outline around most of the picture: it has corners and is empty."""
    height, width = part.image.shape
    if height < 0.7 * shape[0] or width < 0.7 * shape[1]:
        return False
    near_y, near_x = max(2, height // 8), max(2, width // 8)
    corners = [part.image[y, x].any() for y in np.s_[:near_y, -near_y:] for x in np.s_[:near_x, -near_x:]]
    inside = part.image[height // 6 : -(height // 6), width // 6 : -(width // 6)]
    return sum(corners) >= 3 and inside.sum() < 0.1 * part.area


def _ruled(mask: np.ndarray) -> np.ndarray:
    """Thin, nearly horizontal lines from the left border to the right one."""
    height, width = mask.shape
    run = np.ones((1, max(5, width // 4)), bool)
    wide = np.pad(ndimage.binary_dilation(mask, np.ones((3, 1), bool)), ((0, 0), (run.size, run.size)), mode="edge")
    straight = ndimage.binary_opening(wide, run)[:, run.size : -run.size] & mask
    lines = np.zeros_like(mask)
    for line in regionprops(label(straight, connectivity=2)):
        _, left, _, right = line.bbox
        if left <= 0.03 * width and right >= 0.97 * width and line.area < 0.06 * height * width / 2:
            lines[line.slice] |= line.image
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
        if _touches(part, mask.shape) and ndimage.distance_transform_edt(np.pad(part.image, 1)).max() > BLOB * width:
            continue  # the desk beside the sheet, a shadow, a finger
        found.append((_size(part) * np.sqrt(part.area) * likely * (1.2 - off), part))
    return [part for _, part in sorted(found, key=lambda item: -item[0])]


def _touches(part, shape: tuple[int, int]) -> bool:
    top, left, bottom, right = part.bbox
    return top <= 1 or left <= 1 or bottom >= shape[0] - 1 or right >= shape[1] - 1


def _size(part) -> int:
    top, left, bottom, right = part.bbox
    return max(bottom - top, right - left)


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


def centre(mask: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """The ink in ``mask`` as MNIST has it: uint8 (28, 28), in a 20x20 box, centred by mass.

    Args:
        mask: bool (h, w), not empty.
        ink: float (h, w) in [0, 1].
    """
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    strokes = mask[cut]
    scale = BOX / max(strokes.shape)
    skeleton = skeletonize(strokes)
    width = 2 * ndimage.distance_transform_edt(np.pad(strokes, 1))[1:-1, 1:-1][skeleton].mean() * scale
    if width < PEN:
        grow = round((PEN - width) / 2 / scale)
        strokes = ndimage.binary_dilation(np.pad(strokes, grow), disk(grow)) if grow else strokes
        scale = BOX / max(strokes.shape)
    shape = tuple(max(1, round(side * scale)) for side in strokes.shape)
    small = resize(strokes.astype(np.float32), shape, order=1, anti_aliasing=True).clip(0, 1)
    y, x = ndimage.center_of_mass(small)
    canvas = np.zeros((CANVAS, CANVAS), np.float32)
    top = int(np.clip(round((CANVAS - 1) / 2 - y), 0, CANVAS - shape[0]))
    left = int(np.clip(round((CANVAS - 1) / 2 - x), 0, CANVAS - shape[1]))
    canvas[top : top + shape[0], left : left + shape[1]] = small
    return (canvas / max(canvas.max(), 1e-6) * 255).round().astype(np.uint8)

"""Finds what is written in a photograph: the ink, without the paper, its shading and its lines."""

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.filters import apply_hysteresis_threshold, threshold_otsu
from skimage.morphology import disk
from skimage.transform import resize

from imgclf.imaging.ruled_lines import find_ruled_lines, remove_frame
from imgclf.imaging.ruling import MIN_LEVEL, ruling_strength

SEARCH_SIZE = 192  # pixels of the longer side of the picture that ink is searched in
MIN_CONTRAST = 0.1  # of ink, relative to the paper; anything fainter is not ink
ON_LINE = 1.1  # times a line's strength is taken off the ink on it
MIN_SHARPNESS = 0.03  # of the strongest ink: what ink loses at its edge within a pixel; shadows fade more slowly
LINE_REMAINS = 0.6  # ink is stronger than this share of the strongest line; less may be what is left of lines


@dataclass(frozen=True)
class Ink:
    """The ink of a photograph.

    Attributes:
        mask: bool (h, w), where ink is; nowhere on blank paper.
        lines: bool (h, w), frames and ruled lines whose pixels are no ink.
        ruling: float (h, w), the strength of ruled lines, which was taken off the ink.
    """

    mask: np.ndarray
    lines: np.ndarray
    ruling: np.ndarray


def find_ink(photo: np.ndarray, known: Ink | None = None, size: int = SEARCH_SIZE) -> Ink:
    """Searches a photograph for ink.

    Args:
        photo: uint8 (H, W) or (H, W, 3).
        known: what a search of the whole picture found in this part, which shows its lines cut off.
        size: pixels of the longer side of the masks.
    """
    ink = ink_strength(photo, size)
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
        return Ink(nothing, nothing, ruling)
    high = max(threshold_otsu(smooth.clip(0, strongest)), 0.35 * strongest, 0.7 * MIN_CONTRAST)
    mask = apply_hysteresis_threshold(smooth, 0.6 * high, high)
    faint = smooth > max(0.2 * strongest, np.median(smooth) + 4 * noise)
    if ruled.any():  # strokes go on where they cross a line
        dark = with_lines > 0.6 * high
        mask |= ndimage.binary_closing(np.pad(mask, 4), disk(3))[4:-4, 4:-4] & ruled & dark
    lines = find_ruled_lines(faint) | find_ruled_lines(mask)
    # Most lines are fainter than the ink.
    if lines.any() and not ruled.any() and np.median(smooth[lines]) < 0.5 * strongest:
        mask &= apply_hysteresis_threshold(smooth, 0.48 * strongest, 0.6 * strongest)
    lines |= mask & ~remove_frame(mask)
    if known is not None:
        lines |= resize(known.lines.astype(np.float32), ink.shape, order=1) > 0.5
    return Ink(_without_shadows(mask & ~lines, ink, MIN_SHARPNESS * strongest * SEARCH_SIZE / size), lines, ruling)


def _without_shadows(mask: np.ndarray, ink: np.ndarray, min_slope: float) -> np.ndarray:
    """The connected parts of a mask at whose edges the ink's strength falls by ``min_slope`` a pixel or more."""
    edges = mask & ~ndimage.binary_erosion(mask, border_value=1)
    parts, count = ndimage.label(mask, np.ones((3, 3)))
    slopes = ndimage.mean(ndimage.gaussian_gradient_magnitude(ink, 1), np.where(edges, parts, 0), np.arange(count + 1))
    return mask & (slopes >= min_slope)[parts]


def ink_strength(photo: np.ndarray, size: int = SEARCH_SIZE) -> np.ndarray:
    """How much light the ink takes from the paper or, on a dark ground, adds to it; float (h, w) in [0, 1].

    The longer side becomes ``size`` pixels. The paper's light is estimated locally in each colour. The colour
    with the strongest ink counts.
    """
    scale = size / max(photo.shape[:2])
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    image = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
    image = np.atleast_3d(image)
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

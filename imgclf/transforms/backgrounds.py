"""Patches of photographs, the background of the back-image variation."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imgclf.imaging.image_files import SUFFIXES, open_image

# Photographs and micrographs that scikit-image's wheel contains (its data folder lists their licences).
BUNDLED = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
    "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
LONGEST_SIDE = 512  # pixels; larger photographs are reduced, so that memory and the size of structures are alike
SMALLEST_SIDE = 28  # pixels
LEAST_DEVIATION = 12.0  # grey levels; a patch with a lower standard deviation is too plain


class Backgrounds:
    """Random square patches of grey photographs (Larochelle et al. 2007, "mnist-back-image").

    A photograph is drawn uniformly, then one of its patches, uniformly among those that vary enough.

    Args:
        photographs: grey images, uint8 arrays (H, W), each at least ``size`` on both sides.
        size: side of a patch, in pixels.

    Raises:
        ValueError: no photograph has a patch that varies enough.

    Example:
        >>> backgrounds = Backgrounds(photographs("train"))
        >>> patches = backgrounds.sample(10, torch.Generator().manual_seed(0))
    """

    def __init__(self, photographs: list[np.ndarray], size: int = SMALLEST_SIDE) -> None:
        width = max(photo.shape[1] for photo in photographs)
        strip, places, top = [], [], 0
        for photo in photographs:
            rows, columns = np.nonzero(_deviation(photo, size) >= LEAST_DEVIATION)
            if not len(rows):
                continue
            places.append((rows + top) * width + columns)
            strip.append(np.pad(photo, ((0, 0), (0, width - photo.shape[1]))))
            top += photo.shape[0]
        if not strip:
            raise ValueError(f"no photograph has a {size}x{size} patch with enough contrast for a background")
        counts = torch.tensor([len(place) for place in places])
        offset = torch.arange(size)
        self.size = size
        # The photographs stand below each other in one flat strip, so that a patch is a first pixel plus fixed offsets.
        self._pixels = torch.from_numpy(np.concatenate(strip).reshape(-1))
        self._offsets = (offset[:, None] * width + offset).reshape(-1)
        self._places = torch.from_numpy(np.concatenate(places)).int()  # first pixels, photograph after photograph
        self._counts = counts
        self._starts = counts.cumsum(0) - counts

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """uint8 patches (count, 1, size, size), on the generator's device."""
        if self._pixels.device != generator.device:
            for name in ("_pixels", "_offsets", "_places", "_counts", "_starts"):
                setattr(self, name, getattr(self, name).to(generator.device))
        which_photo, which_patch = torch.rand(2, count, generator=generator, device=generator.device)
        photo = (which_photo * len(self._counts)).long()
        patch = self._starts[photo] + (which_patch * self._counts[photo]).long()
        index = self._places[patch].long()[:, None] + self._offsets
        return self._pixels.take(index).view(count, 1, self.size, self.size)


def photographs(split: str, backgrounds: str | None = None) -> list[np.ndarray]:
    """Grey photographs (uint8, H x W) for training or for evaluation; the two share none.

    Args:
        split: "train", or "eval" for validation and test, which get every fourth photograph.
        backgrounds: a folder with images of your own instead of scikit-image's.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: it has fewer than two images, or one that is unreadable or smaller than 28x28 pixels.

    Example:
        >>> len(photographs("train")), len(photographs("eval"))
        (13, 4)
    """
    if backgrounds is None:
        import skimage.data  # lazy: only back-image needs it

        files = [Path(skimage.data.data_dir) / name for name in BUNDLED]
    else:
        if not Path(backgrounds).is_dir():
            raise FileNotFoundError(f"backgrounds={backgrounds}: no such folder")
        files = sorted(path for path in Path(backgrounds).iterdir() if path.suffix.lower() in SUFFIXES)
        if len(files) < 2:
            raise ValueError(
                f"backgrounds={backgrounds}: it has {len(files)} images; training and evaluation need one each"
            )
    chosen = [file for index, file in enumerate(files) if (index % 4 == 1) == (split == "eval")]
    return [_read(file) for file in chosen]


def _read(file: Path) -> np.ndarray:
    try:
        grey = open_image(file, LONGEST_SIDE, "L").convert("L")
    except OSError as error:
        raise ValueError(str(error)) from error
    grey.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    if min(grey.size) < SMALLEST_SIDE:
        raise ValueError(f"{file}: {grey.width}x{grey.height} pixels; a background needs at least 28x28")
    return np.array(grey)


def _deviation(photo: np.ndarray, size: int) -> np.ndarray:
    """Standard deviation of each size x size patch, at the patch's first pixel."""
    values = photo.astype(np.float64)
    return np.sqrt(np.maximum(_mean(values**2, size) - _mean(values, size) ** 2, 0))


def _mean(values: np.ndarray, size: int) -> np.ndarray:
    """Mean of each size x size patch, from a summed-area table."""
    table = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    return (table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]) / size**2

"""Patches of photographs, the background of the back-image variation."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgclf.imaging.image_files import SUFFIXES, open_image
from imgclf.transforms.draws import per_image, uniform
from imgclf.transforms.intensity import ColorJitter

# Photographs and micrographs that scikit-image's wheel contains (its data folder lists their licences).
BUNDLED = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
    "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
LONGEST_SIDE = 512  # pixels; larger photographs are reduced, so that memory and the size of structures are alike
SMALLEST_SIDE = 28  # pixels
JITTER = ColorJitter(brightness=0.2, contrast=1.0)
LEAST_DEVIATION = 12.0  # grey levels; a patch with a lower standard deviation is too plain


class Backgrounds:
    """Random square patches of grey photographs (Larochelle et al. 2007, "mnist-back-image").

    A photograph is drawn uniformly, then one of its patches, uniformly among those that vary enough.

    Args:
        photographs: grey images, uint8 arrays (H, W), each at least ``size`` pixels wide and high.
        size: side of a patch, in pixels.
        vary: photographs appear at half their size too, and a patch is flipped, turned by quarter turns, inverted, and
            changed in contrast and brightness at random. A few photographs then serve as many.

    Raises:
        ValueError: no photograph has a patch that varies enough.

    Example:
        >>> patches = Backgrounds(photographs("train")).sample(10, torch.Generator().manual_seed(0))
    """

    def __init__(self, photographs: list[np.ndarray], size: int = SMALLEST_SIDE, vary: bool = False) -> None:
        if vary:
            photographs = photographs + [half for half in map(_halve, photographs) if min(half.shape) >= size]
        width = max(photo.shape[1] for photo in photographs)
        # The photographs stand below each other in one strip, so that a patch is a first pixel plus fixed offsets.
        strip = np.concatenate([np.pad(photo, ((0, 0), (0, width - photo.shape[1]))) for photo in photographs])
        places, top = [], 0
        for photo in photographs:
            rows, columns = np.nonzero(_deviation(photo, size) >= LEAST_DEVIATION)
            if len(rows):
                places.append((rows + top) * width + columns)
            top += len(photo)
        if not places:
            raise ValueError(f"no photograph has a {size}x{size} patch with enough contrast for a background")
        offset = torch.arange(size)
        self.size, self.vary = size, vary
        self._pixels = torch.from_numpy(strip)
        self._offsets = (offset[:, None] * width + offset).reshape(-1)
        self._places = torch.from_numpy(np.concatenate(places)).int()  # first pixels, photograph after photograph
        self._counts = torch.tensor([len(place) for place in places])
        self._starts = self._counts.cumsum(0) - self._counts

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """uint8 patches (count, 1, size, size), on the generator's device."""
        if self._pixels.device != generator.device:
            for name in ("_pixels", "_offsets", "_places", "_counts", "_starts"):
                setattr(self, name, getattr(self, name).to(generator.device))
        which_photo, which_patch = torch.rand(2, count, generator=generator, device=generator.device)
        photo = (which_photo * len(self._counts)).long()
        patch = self._starts[photo] + (which_patch * self._counts[photo]).long()
        index = self._places[patch].long()[:, None] + self._offsets
        patches = self._pixels.take(index).view(count, 1, self.size, self.size)
        return _vary(patches, generator) if self.vary else patches


def photographs(split: str, backgrounds: str | None = None) -> list[np.ndarray]:
    """Grey photographs (uint8, H x W) for training or for evaluation; the two share none.

    Args:
        split: "train", or "eval" for validation and test, which get every fourth photograph.
        backgrounds: a folder with images of your own instead of scikit-image's.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: it has fewer than two images, or one that is unreadable or smaller than 28x28 pixels.
    """
    if backgrounds is None:
        import skimage.data  # lazy: only back-image needs it

        files = [Path(skimage.data.data_dir) / name for name in BUNDLED]
    elif not Path(backgrounds).is_dir():
        raise FileNotFoundError(f"backgrounds={backgrounds}: no such folder")
    else:
        files = sorted(path for path in Path(backgrounds).iterdir() if path.suffix.lower() in SUFFIXES)
        if len(files) < 2:
            raise ValueError(f"backgrounds={backgrounds}: it has {len(files)} images, give it two or more")
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


def _halve(photo: np.ndarray) -> np.ndarray:
    return np.array(Image.fromarray(photo).reduce(2))


def _vary(patches: Tensor, generator: torch.Generator) -> Tensor:
    """Flips, turns and inverts each patch with probability 1/2 each, and changes its contrast and brightness."""
    mirrored, upturned, transposed, inverted = (per_image(x < 0.5) for x in uniform(4, patches, generator))
    patches = torch.where(mirrored, patches.flip(-1), patches)
    patches = torch.where(upturned, patches.flip(-2), patches)
    patches = torch.where(transposed, patches.mT, patches)
    patches = torch.where(inverted, 255 - patches, patches)
    return JITTER(patches.float().div_(255), generator).mul_(255).round_().to(torch.uint8)


def _deviation(photo: np.ndarray, size: int) -> np.ndarray:
    """Standard deviation of each size x size patch, at the patch's first pixel, from summed-area tables."""
    values = photo.astype(np.float64)
    table = np.pad(np.stack([values, values**2], -1).cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))
    sums = table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]
    mean, mean_square = np.moveaxis(sums / size**2, -1, 0)
    return np.sqrt(np.maximum(mean_square - mean**2, 0))

"""Patches of photographs, the background of the back-image variation."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imgclf.imaging.image_files import SUFFIXES, open_image

# Photographs and micrographs that ship inside scikit-image's wheel (its data folder; licences listed there).
# Every fourth is kept for evaluation, so that no validation or test background was ever trained on.
BUNDLED = (
    "astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png",
    "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png",
    "retina.jpg", "rocket.jpg", "text.png",
)  # fmt: skip
LONGEST_SIDE = 512  # pixels; larger photographs are reduced, which keeps memory and structure size comparable
LEAST_DEVIATION = 12.0  # grey levels: a patch whose standard deviation is lower is refused as too plain


class Backgrounds:
    """Random square patches of grey photographs (Larochelle et al. 2007, "mnist-back-image").

    A photograph is drawn uniformly, then a place in it, uniformly among those whose patch varies enough.

    Args:
        photographs: grey images, uint8 arrays (H, W), each at least ``size`` on both sides.
        size: side of a patch, in pixels.
    """

    def __init__(self, photographs: list[np.ndarray], size: int = 28) -> None:
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
        # One flat strip of pixels: a patch is its first pixel's index plus a constant pattern of offsets.
        self._tensors = {
            "pixels": torch.from_numpy(np.concatenate(strip).reshape(-1)),
            "places": torch.from_numpy(np.concatenate(places)).int(),
            "counts": counts,
            "starts": counts.cumsum(0) - counts,
            "pattern": (offset[:, None] * width + offset).reshape(-1),
        }

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """uint8 patches (count, 1, size, size), on the generator's device."""
        if self._tensors["pixels"].device != generator.device:
            self._tensors = {name: tensor.to(generator.device) for name, tensor in self._tensors.items()}
        t = self._tensors
        draw = torch.rand(2, count, generator=generator, device=generator.device)
        photo = (draw[0] * len(t["counts"])).long()
        place = t["places"][t["starts"][photo] + (draw[1] * t["counts"][photo]).long()].long()
        index = place[:, None] + t["pattern"]
        return t["pixels"].take(index).view(count, 1, self.size, self.size)


def photographs(split: str, folder: str | None = None) -> list[np.ndarray]:
    """Grey photographs (uint8, H x W) for ``split`` "train" or "eval"; the two never share one.

    Args:
        split: "train", or "eval" for validation and test.
        folder: a folder of images of your own instead of scikit-image's.

    Raises:
        FileNotFoundError: the folder does not exist.
        ValueError: it holds fewer than two readable images of at least 28x28 pixels.
    """
    if folder is None:
        import skimage.data

        files = [Path(skimage.data.data_dir) / name for name in BUNDLED]
    else:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"data.backgrounds={folder}: no such folder")
        files = sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in SUFFIXES)
        if len(files) < 2:
            raise ValueError(
                f"data.backgrounds={folder}: {len(files)} images there; training and evaluation need one each"
            )
    chosen = [file for i, file in enumerate(files) if (i % 4 == 1) == (split == "eval")]
    return [_read(file) for file in chosen]


def _read(file: Path) -> np.ndarray:
    try:
        grey = open_image(file, LONGEST_SIDE, "L").convert("L")
    except OSError as error:
        raise ValueError(str(error)) from error
    grey.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    if min(grey.size) < 28:
        raise ValueError(f"{file}: {grey.width}x{grey.height} pixels; a background needs at least 28x28")
    return np.array(grey)


def _deviation(photo: np.ndarray, size: int) -> np.ndarray:
    """Standard deviation of every size x size patch, at the patch's first pixel, from two summed-area tables."""
    values = photo.astype(np.float64)

    def mean(array: np.ndarray) -> np.ndarray:
        table = np.pad(array.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        return (table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]) / size**2

    return np.sqrt(np.maximum(mean(values**2) - mean(values) ** 2, 0))

"""A trained classifier, ready to be asked."""

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from imgclf.models.classifier import Classifier

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class Prediction(NamedTuple):
    """The answer for one image; the columns of predictions.csv."""

    predicted: int
    class_name: str
    probability: float


class Predictor:
    """Applies a checkpoint's preprocessing and network, in float32; the one path of evaluation and prediction.

    Args:
        classifier: with its weights, on the device it shall run on.
        image_shape: channels, height, width of the images it was trained on.
        batch_size: images a forward pass.
    """

    def __init__(self, classifier: Classifier, image_shape: tuple[int, int, int], batch_size: int = 1000) -> None:
        self.classifier, self.image_shape, self.batch_size = classifier.eval(), image_shape, batch_size

    @property
    def class_names(self) -> list[str]:
        return self.classifier.class_names

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """float32 (N, classes), on the CPU, of uint8 or float [0, 1] images (N, C, H, W) of ``image_shape``."""
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images of shape {tuple(images.shape[1:])}, but the checkpoint was trained on {self.image_shape} "
                "(channels, height, width)"
            )
        chunks = images.split(self.batch_size)
        return torch.cat([self.classifier(chunk.to(self.classifier.device)).float().cpu() for chunk in chunks])

    def probabilities(self, images: Any) -> Tensor:
        """float32 (N, classes), rows summing to 1; takes what ``predict`` takes."""
        return self.logits(self.tensor(images)).softmax(1)

    def predict(self, images: Any) -> list[Prediction]:
        """One Prediction an image.

        Args:
            images: a tensor or array (H, W), (N, H, W), (C, H, W) or (N, C, H, W), uint8 or float in [0, 1], of the
                shape the network was trained on; or a path or PIL image, or several, which are scaled to it.

        Raises:
            ValueError: another shape, or values out of range.
            OSError: a file that is not a readable image.
        """
        best = self.probabilities(images).max(1)
        return [
            Prediction(index, self.class_names[index], probability)
            for index, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def tensor(self, images: Any) -> Tensor:
        """What ``predict`` takes, as (N, C, H, W)."""
        if isinstance(images, str | Path | Image.Image):
            images = [images]
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(np.ascontiguousarray(images))
        if not isinstance(images, Tensor):
            return self._read(images)
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images of {images.dtype}: give uint8, or floats in [0, 1]")
        if images.is_floating_point() and images.numel() and not (images.min() >= 0 and images.max() <= 1):
            raise ValueError("float images must lie in [0, 1]; give 0..255 as uint8")
        channels = self.image_shape[0]
        if images.ndim == 2 or (images.ndim == 3 and len(images) == channels and channels > 1):
            images = images[None]
        if images.ndim == 3:
            images = images[:, None]
        return images

    def _read(self, images: Iterable[str | Path | Image.Image]) -> Tensor:
        channels, height, width = self.image_shape
        arrays = []
        for source in images:
            image = source if isinstance(source, Image.Image) else open_image(source)
            if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
                image = Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
            image = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB").resize((width, height))
            arrays.append(torch.from_numpy(np.array(image)).view(height, width, channels).permute(2, 0, 1))
        if not arrays:
            return torch.empty(0, *self.image_shape, dtype=torch.uint8)
        return torch.stack(arrays)


def open_image(path: str | Path) -> Image.Image:
    """Reads a JPEG, PNG, BMP, TIFF or WebP file whole.

    Raises:
        OSError: missing, damaged or of another format; the message starts with the path.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow's decoders raise many things on damaged files
        raise OSError(f"{path}: not a readable image ({error})") from error


def find_images(pattern: str) -> list[Path]:
    """A file, every image below a folder, or the files that match a glob (``**`` crosses folders), sorted.

    Raises:
        FileNotFoundError: there is nothing of the kind.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    candidates = path.rglob("*") if path.is_dir() else (Path(name) for name in glob.glob(str(path), recursive=True))
    found = sorted(file for file in candidates if file.is_file() and file.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(f"images={pattern}: no image ({', '.join(SUFFIXES)}) is there")
    return found

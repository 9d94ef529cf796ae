"""A trained classifier, ready to be asked."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgclf.data.files import read_image
from imgclf.metrics import decide
from imgclf.models.classifier import Classifier

PIXELS = 2**21  # of a forward pass, so that its activations stay within a few GB


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
        batch_size: images a forward pass; by default as many as ``PIXELS`` allows, up to 1,000.
    """

    def __init__(
        self, classifier: Classifier, image_shape: tuple[int, int, int], batch_size: int | None = None
    ) -> None:
        self.classifier, self.image_shape = classifier.eval(), image_shape
        self.batch_size = batch_size or min(1000, max(1, PIXELS // math.prod(image_shape[1:])))

    @property
    def class_names(self) -> list[str]:
        return self.classifier.class_names

    @property
    def threshold(self) -> float:
        """Of two classes: the probability from which the second is predicted."""
        return float(self.classifier.threshold)

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
        return self.answers(self.probabilities(images))

    def answers(self, probabilities: Tensor) -> list[Prediction]:
        """One Prediction a row of float (N, classes); of two classes the checkpoint's threshold decides."""
        predicted = decide(probabilities, self.threshold)
        chosen = probabilities.gather(1, predicted[:, None])[:, 0]
        return [
            Prediction(index, self.class_names[index], probability)
            for index, probability in zip(predicted.tolist(), chosen.tolist(), strict=True)
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
        arrays = [torch.from_numpy(read_image(source, self.image_shape)) for source in images]
        return torch.stack(arrays) if arrays else torch.empty(0, *self.image_shape, dtype=torch.uint8)

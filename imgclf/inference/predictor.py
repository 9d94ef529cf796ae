"""A trained classifier, ready to be asked."""

import copy
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgclf.core import rng
from imgclf.core.metrics import decide
from imgclf.imaging.handwriting import MNIST_SIZE, SEARCH_SIZE, read_digit
from imgclf.imaging.image_files import open_image, read_image
from imgclf.models.classifier import Classifier
from imgclf.transforms.augmentation import Augmentation

IMAGES_AS = ("auto", "photo", "mnist")
DIGITS = [str(digit) for digit in range(10)]
PIXELS = 2**21  # of a forward pass, so that its activations stay within a few GB


class Prediction(NamedTuple):
    """The answer for one image; the columns of predictions.csv.

    A photograph in which no single digit was found has neither class nor probability, and says so as its class name.
    """

    predicted: int | None
    class_name: str
    probability: float | None


class Predictor:
    """Applies a checkpoint's preprocessing and network, in float32; the one path of evaluation and prediction.

    Args:
        classifier: with its weights, on the device it shall run on; or several, whose probabilities are averaged.
        image_shape: channels, height, width of the images it was trained on.
        batch_size: images a forward pass; by default as many as ``PIXELS`` allows, up to 1,000.
        dark_ink: it was trained on dark digits on light paper.
        scaled: it was trained on image files that were only scaled, so that "auto" does the same to others.

    Attributes:
        classifiers: one, or the members of an ensemble.
    """

    def __init__(
        self,
        classifier: Classifier | Sequence[Classifier],
        image_shape: tuple[int, int, int],
        batch_size: int | None = None,
        dark_ink: bool = False,
        scaled: bool = False,
    ) -> None:
        several = [classifier] if isinstance(classifier, Classifier) else classifier
        self.classifiers, self.image_shape, self.dark_ink = [one.eval() for one in several], image_shape, dark_ink
        self._views, self._flips, self._augmentation = 1, False, Augmentation()
        self.scaled = scaled
        self.batch_size = batch_size or min(1000, max(1, PIXELS // math.prod(image_shape[1:])))

    @property
    def classifier(self) -> Classifier:
        """The only one, or an ensemble's first."""
        return self.classifiers[0]

    @property
    def class_names(self) -> list[str]:
        return self.classifier.class_names

    @property
    def threshold(self) -> float:
        """Of two classes: the probability from which the second is predicted; of an ensemble the members' mean."""
        return sum(float(one.threshold) for one in self.classifiers) / len(self.classifiers)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """float32 (N, classes), on the CPU, of uint8 or float [0, 1] images (N, C, H, W) of ``image_shape``."""
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images of shape {tuple(images.shape[1:])}, but the checkpoint was trained on {self.image_shape} "
                "(channels, height, width)"
            )
        return torch.cat([self._answer(chunk).cpu() for chunk in images.split(self.batch_size)])

    def use_tta(self, count: int, augmentation: Augmentation) -> None:
        """Test-time augmentation: from now on probabilities are means over the image as it is and augmented views.

        Args:
            count: of views, the image itself included; 1 for that alone.
            augmentation: draws count - 1 changes, from a constant seed and on the CPU, that every image undergoes. If
                it flips, every second view is flipped.

        Raises:
            ValueError: no whole number from 1 up; several views, but no augmentation that changes an image, or one that
                mixes images; or an augmentation and no view to apply it to.
        """
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"tta={count}: give the number of views, a whole number from 1 (none but the image) up")
        if count == 1 and augmentation:
            raise ValueError("tta=1 is the image as it is: give the number of views for augmentation, as in tta=8")
        if augmentation.mixup or augmentation.cutmix:
            raise ValueError("augmentation.mixup and cutmix make one image of two: leave them out of views")
        self._views, self._flips, self._augmentation = count, augmentation.flip > 0, copy.copy(augmentation)
        self._augmentation.flip = 0.0
        probe = torch.rand(1, 1, 32, 32, generator=rng.generator("probe"))
        if count > 1 and all(torch.equal(self._view(probe, view), probe) for view in range(1, count)):
            raise ValueError(
                f"tta={count} needs an augmentation to draw views from, such as augmentation.translate=0.04"
            )

    def _answer(self, images: Tensor) -> Tensor:
        """float32 logits of a chunk; of means of probabilities their logarithm."""
        views = [images, *(self._view(images, view) for view in range(1, self._views if len(images) else 1))]
        logits = [one(view.to(one.device)).float() for view in views for one in self.classifiers]
        if len(logits) == 1:
            return logits[0]
        return torch.stack(logits).softmax(2).mean(0).clamp_min(1e-30).log()

    def _view(self, images: Tensor, view: int) -> Tensor:
        """As channels of one image all images get the same change, whatever the chunk they are in."""
        images = images.cpu().float() / (1 if images.is_floating_point() else 255)
        images = images.flip(-1) if self._flips and view % 2 else images
        as_one = images.reshape(1, -1, *images.shape[2:])
        return self._augmentation(as_one, rng.generator("views", view)).view_as(images)

    @property
    def reads_handwriting(self) -> bool:
        """Whether it tells digits apart, in images of MNIST's size: then photographs are read as such."""
        return self.class_names == DIGITS and self.image_shape == (1, MNIST_SIZE, MNIST_SIZE)

    def predict_proba(self, images: Any, images_as: str = "auto") -> Tensor:
        """float32 (N, classes), rows summing to 1; takes what ``predict`` takes."""
        return self.logits(self.tensor(images, images_as)).softmax(1)

    def predict(self, images: Any, images_as: str = "auto") -> list[Prediction]:
        """One Prediction an image.

        Args:
            images: a tensor or array (H, W), (N, H, W), (C, H, W) or (N, C, H, W), uint8 or float in [0, 1], of the
                shape the network was trained on, or a list of such images; or a path or PIL image, or several, which
                are fitted to it.
            images_as: of paths and PIL images: "photo", a photograph of one digit, which is found in it and centred as
                MNIST's are (``imgclf.imaging.handwriting``); "mnist", what the network was trained on, only scaled;
                "auto", the first
                for a network of digits, unless it was trained on image files or the image has MNIST's size already.

        Raises:
            ValueError: another shape, values out of range, or photographs for a network of something else.
            OSError: a file that is not a readable image.
        """
        return self.predict_preprocessed(*self.preprocess(images, images_as))

    def predict_preprocessed(self, seen: Tensor, faults: list[str | None]) -> list[Prediction]:
        """One Prediction an image, of what ``see`` gave."""
        answers = self.to_predictions(self.logits(seen).softmax(1))
        return [Prediction(None, fault, None) if fault else a for fault, a in zip(faults, answers, strict=True)]

    def to_predictions(self, probabilities: Tensor) -> list[Prediction]:
        """One Prediction a row of float (N, classes); of two classes the checkpoint's threshold decides."""
        predicted = decide(probabilities, self.threshold)
        chosen = probabilities.gather(1, predicted[:, None])[:, 0]
        return [
            Prediction(index, self.class_names[index], probability)
            for index, probability in zip(predicted.tolist(), chosen.tolist(), strict=True)
        ]

    def tensor(self, images: Any, images_as: str = "auto") -> Tensor:
        """What ``predict`` takes, as the network sees it: (N, C, H, W)."""
        return self.preprocess(images, images_as)[0]

    def preprocess(self, images: Any, images_as: str = "auto") -> tuple[Tensor, list[str | None]]:
        """What ``predict`` takes, as the network sees it, and for each image why it shows no single digit, or None."""
        if images_as not in IMAGES_AS:
            raise ValueError(f"images_as={images_as}: choose one of {', '.join(IMAGES_AS)}")
        if images_as == "photo" and not self.reads_handwriting:
            raise ValueError("images_as=photo is for networks of the ten digits; leave it out for this one")
        if isinstance(images, str | Path | Image.Image):
            images = [images]
        if isinstance(images, list | tuple) and images and all(isinstance(one, np.ndarray | Tensor) for one in images):
            arrays = [torch.as_tensor(one) for one in images]
            if len({(one.shape, one.dtype) for one in arrays}) > 1:
                raise ValueError("arrays of several shapes or types: give images of one shape and type at a time")
            images = torch.stack([one[None] if one.ndim == 2 else one for one in arrays])
        if isinstance(images, np.ndarray):
            images = torch.from_numpy(np.ascontiguousarray(images))
        if not isinstance(images, Tensor):
            return self._read(images, images_as)
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise ValueError(f"images of {images.dtype}: give uint8, or floats in [0, 1]")
        if images.is_floating_point() and images.numel() and not (images.min() >= 0 and images.max() <= 1):
            raise ValueError("float images must lie in [0, 1]; give 0..255 as uint8")
        channels = self.image_shape[0]
        if images.ndim == 2 or (images.ndim == 3 and len(images) == channels and channels > 1):
            images = images[None]
        if images.ndim == 3:
            images = images[:, None]
        return images, [None] * len(images)

    def _read(self, images: Iterable[str | Path | Image.Image], images_as: str) -> tuple[Tensor, list[str | None]]:
        arrays, faults = [], []
        for source in images:
            array, fault = self._see(source, images_as)
            arrays.append(torch.from_numpy(array))
            faults.append(fault)
        return torch.stack(arrays) if arrays else torch.empty(0, *self.image_shape, dtype=torch.uint8), faults

    def _see(self, source: str | Path | Image.Image, images_as: str) -> tuple[np.ndarray, str | None]:
        if images_as == "mnist" or not self.reads_handwriting or (images_as == "auto" and self.scaled):
            return read_image(source, self.image_shape), None
        side = 4 * SEARCH_SIZE
        image = open_image(source, side)
        if images_as == "auto" and image.size == (MNIST_SIZE, MNIST_SIZE):
            return read_image(image, self.image_shape), None
        colours = image.convert("RGB")
        if (times := max(colours.size) // side) > 1:  # as JPEGs are decoded; what follows takes memory
            colours = colours.reduce(times)
        digit = read_digit(np.asarray(colours))
        return (255 - digit.image if self.dark_ink else digit.image)[None], digit.fault

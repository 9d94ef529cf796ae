"""Predictions of a trained classifier: for tensors, arrays, image files and PIL images."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from imgclf.core import rng
from imgclf.core.metrics import decide
from imgclf.core.text import some_names
from imgclf.core.validation import Positive, Probability, checked
from imgclf.imaging.handwriting import MNIST_SIZE
from imgclf.imaging.image_files import Fit, Source
from imgclf.inference.inputs import read_photo, read_scaled, to_sources
from imgclf.models.classifier import Classifier
from imgclf.transforms.compose import Compose
from imgclf.transforms.mixing import Mixing
from imgclf.transforms.spatial import RandomFlip

UNSURE = "unsure"
DIGITS = [str(digit) for digit in range(10)]
MAX_PIXELS = 2**21  # in a forward pass; its activations then stay within a few GB

ImagesAs = Literal["auto", "photo", "mnist"]


class Prediction(NamedTuple):
    """The answer for one image, as in a row of predictions.csv.

    A photograph in which no single digit was found has None, what is wrong with it, and None. An answer that is not
    sure enough has None, "unsure" and its probability.
    """

    predicted: int | None  # index of the class
    class_name: str
    probability: float | None  # of the predicted class


class Predictor:
    """Applies a checkpoint's preprocessing and network in float32: the one path of evaluation and prediction.

    Args:
        classifier: a classifier with its weights, on the device where it shall run; or several, whose probabilities
            are averaged.
        image_shape: channels, height, width of the images that it was trained on.
        batch_size: images in a forward pass; by default as many as ``MAX_PIXELS`` allows, up to 1,000.
        reader: how a network of digits reads image files. "image_file": as files that are only scaled, which it was
            trained on; "handwriting": as photographs of one digit, which is turned into an image as MNIST has it;
            "auto": the latter if the network tells the ten digits apart in images of MNIST's shape.
        polarity: "light_on_dark"; "dark_on_light" if it was trained on dark digits on light paper; or "any" if it was
            trained on digits before noise or photographs.
        fit, bits: how image files of another aspect ratio, or of 16 bits, are read (``image_files.read_image``).
        metadata: what the checkpoint says of itself (``imgclf.checkpoints.metadata``).
        epoch: the checkpoint's epoch, counted from 1.

    Example:
        >>> predictor = load("best.ckpt")
        >>> predictor.predict_proba(torch.zeros(5, 28, 28, dtype=torch.uint8)).shape
        torch.Size([5, 10])
    """

    @checked
    def __init__(
        self,
        classifier: Classifier | Sequence[Classifier],
        image_shape: Sequence[Positive],
        batch_size: Positive | None = None,
        reader: Literal["auto", "image_file", "handwriting"] = "auto",
        polarity: Literal["light_on_dark", "dark_on_light", "any"] = "light_on_dark",
        fit: Fit = "stretch",
        bits: Annotated[int, Field(ge=8, le=16)] = 16,
        metadata: dict | None = None,
        epoch: int | None = None,
    ) -> None:
        classifiers = [classifier] if isinstance(classifier, Classifier) else classifier
        channels, height, width = image_shape
        self.classifiers = [one.eval() for one in classifiers]
        self.classifier = self.classifiers[0]  # the only one, or the first one of an ensemble
        self.class_names = self.classifier.class_names
        self.image_shape = channels, height, width
        self.batch_size = batch_size or min(1000, max(1, MAX_PIXELS // (height * width)))
        self.reader, self.polarity, self.fit, self.bits = reader, polarity, fit, bits
        self.metadata: dict[str, Any] = metadata or {}
        self.epoch = epoch
        self._views, self._flips, self._augmentation = 1, False, Compose()

    def __repr__(self) -> str:
        names, shape = some_names(self.class_names), "x".join(map(str, self.image_shape))
        network = " + ".join(type(one.network).__name__ for one in self.classifiers)
        accuracy = self.metadata.get("metrics", {}).get("val/accuracy")
        known = "" if accuracy is None else f", validation accuracy {accuracy:.4f}"
        return f"Predictor({network} for {len(self.class_names)} classes ({names}), images of {shape}{known})"

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How a file becomes an input, in plain types, as ``ImageDataModule.preprocessing`` gives it."""
        reading = {name: getattr(self, name) for name in ("reader", "polarity", "fit", "bits")}
        return {"image_shape": list(self.image_shape), **reading}

    @property
    def threshold(self) -> float:
        """The probability from which the second of two classes is predicted; the members' mean in an ensemble."""
        return sum(float(one.threshold) for one in self.classifiers) / len(self.classifiers)

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Computes logits, float32 (N, classes) on the CPU, from images (N, C, H, W), uint8 or float in [0, 1].

        Raises:
            ValueError: the images are not of ``image_shape``.
        """
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images of shape {tuple(images.shape[1:])}, but the checkpoint was trained on {self.image_shape} "
                "(channels, height, width)"
            )
        return torch.cat([self._answer(chunk).cpu() for chunk in images.split(self.batch_size)])

    def features(self, images: Tensor) -> Tensor:
        """Computes what the head of the (first) network sees, float32 (N, features) on the CPU, from such images."""
        seen: list[Tensor] = []
        with self.classifier.network.get_head()[0].register_forward_pre_hook(
            lambda _, inputs: seen.append(inputs[0].detach().flatten(1).float().cpu())
        ):
            self.logits(images)
        return torch.cat(seen)

    def use_tta(self, views: int, augmentation: Compose) -> None:
        """Turns on test-time augmentation: probabilities become means over several views of each image.

        Args:
            views: number of views, the unchanged image included; 1 turns it off.
            augmentation: draws one change for each further view, on the CPU and from a constant seed; all images
                undergo the same. Where it has a RandomFlip, every second view is flipped, whatever its p.

        Raises:
            ValueError: ``views`` is no whole number from 1 up; the augmentation mixes images, or does not change them
                where there are several views; or it changes them, but there is one view only.

        Example:
            >>> predictor.use_tta(8, Compose([RandomAffine(translate=0.04), RandomFlip(p=0.5)]))
        """
        if not isinstance(views, int) or views < 1:
            raise ValueError(f"tta={views}: give the number of views, a whole number from 1 (the image alone) up")
        if views == 1 and augmentation:
            raise ValueError("tta=1: a single view is the unchanged image; give more for the augmentation, as in tta=8")
        if any(isinstance(transform, Mixing) for transform in augmentation.transforms):
            raise ValueError("mixup and cutmix make one image of two: leave them out of views")
        flips = [transform for transform in augmentation.transforms if isinstance(transform, RandomFlip)]
        self._views, self._flips = views, bool(flips)
        self._augmentation = Compose([transform for transform in augmentation.transforms if transform not in flips])
        probe = torch.rand(1, 1, 32, 32, generator=rng.generator("probe"))
        if views > 1 and all(torch.equal(self._view(probe, view), probe) for view in range(1, views)):
            raise ValueError(f"tta={views}: views need an augmentation that changes images, such as translate=0.04")

    def _answer(self, images: Tensor) -> Tensor:
        """float32 logits of a chunk; where probabilities are averaged, the logarithm of the mean."""
        views = [images, *(self._view(images, view) for view in range(1, self._views if len(images) else 1))]
        logits = [one(view.to(one.device)).float() for view in views for one in self.classifiers]
        if len(logits) == 1:
            return logits[0]
        return torch.stack(logits).softmax(2).mean(0).clamp_min(1e-30).log()

    def _view(self, images: Tensor, view: int) -> Tensor:
        """Changes all images in the same way: the augmentation gets them as the channels of a single image."""
        images = images.cpu().float() / (1 if images.is_floating_point() else 255)
        images = images.flip(-1) if self._flips and view % 2 else images
        as_one = images.reshape(1, -1, *images.shape[2:])
        return self._augmentation(as_one, rng.generator("views", view)).view_as(images)

    @property
    def reads_handwriting(self) -> bool:
        """Whether it can read photographs of handwritten digits."""
        if self.image_shape != (1, MNIST_SIZE, MNIST_SIZE):
            return False
        return self.reader == "handwriting" or self.class_names == DIGITS

    @checked
    def predict(self, images: Any, images_as: ImagesAs = "auto", unsure_below: Probability = 0.0) -> list[Prediction]:
        """Predicts the class of every image; takes what ``preprocess`` takes.

        An answer of a lower probability than ``unsure_below`` has the class name "unsure".
        """
        return self.predict_preprocessed(*self.preprocess(images, images_as), unsure_below)

    def predict_proba(self, images: Any, images_as: ImagesAs = "auto") -> Tensor:
        """Probabilities, float32 (N, classes), whose rows sum to 1; takes what ``preprocess`` takes."""
        return self.logits(self.preprocess(images, images_as)[0]).softmax(1)

    def predict_preprocessed(
        self, inputs: Tensor, faults: Sequence[str | None], unsure_below: float = 0.0
    ) -> list[Prediction]:
        """Predicts the class of every image that ``preprocess`` gave; an image with a fault has no class."""
        answers = zip(faults, self.to_predictions(self.logits(inputs).softmax(1), unsure_below), strict=True)
        return [Prediction(None, fault, None) if fault else prediction for fault, prediction in answers]

    def to_predictions(self, probabilities: Tensor, unsure_below: float = 0.0) -> list[Prediction]:
        """One Prediction a row of float (N, classes); the checkpoint's threshold decides between two classes."""
        predicted = decide(probabilities, self.threshold)
        chosen = probabilities.gather(1, predicted[:, None])[:, 0]
        return [
            Prediction(None, UNSURE, probability)
            if probability < unsure_below
            else Prediction(index, self.class_names[index], probability)
            for index, probability in zip(predicted.tolist(), chosen.tolist(), strict=True)
        ]

    @checked
    def preprocess(self, images: Any, images_as: ImagesAs = "auto") -> tuple[Tensor, list[str | None]]:
        """Turns images into the network's inputs.

        Args:
            images: an image or several: arrays or tensors (``inputs.arrays_to_images``), paths, folders, globs, the
                bytes of image files, open files or PIL images. Arrays of another size are scaled, as files are.
            images_as: how paths and PIL images are read. "photo": as a photograph of one digit, which is found and
                centred as MNIST's are (``imgclf.imaging.handwriting``). "mnist": as images that are only scaled.
                "auto": the first for a network that reads handwriting, unless it was trained on image files or the
                image has MNIST's size and its black background already.

        Returns:
            The inputs, (N, C, H, W), uint8 or float in [0, 1]; and the faults: for each image why it shows no single
            digit, or None.

        Raises:
            ValueError: values out of range, or photographs for a network that does not read handwriting.
            OSError: a file is not a readable image.
        """
        if images_as == "photo" and not self.reads_handwriting:
            raise ValueError("images_as=photo is for networks of the ten digits; leave it out for this one")
        images = to_sources(images, self.image_shape, self.bits)
        if isinstance(images, Tensor):
            return images, [None] * len(images)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            read = list(pool.map(functools.partial(self._read, images_as), images))
        inputs = [torch.empty(0, *self.image_shape, dtype=torch.uint8), *(pixels[None] for pixels, _ in read)]
        return torch.cat(inputs), [fault for _, fault in read]

    def _read(self, images_as: ImagesAs, source: Source) -> tuple[Tensor, str | None]:
        is_auto = images_as == "auto" and self.reader != "image_file"
        if self.reads_handwriting and (is_auto or images_as == "photo"):
            return read_photo(source, self.polarity, unless_scaled=is_auto)
        invert_light = is_auto and self.polarity == "light_on_dark"
        return read_scaled(source, self.image_shape, self.fit, self.bits, invert_light=invert_light)

"""Turns what a user has (arrays, image files, PIL images) into inputs of a network."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgclf.imaging.handwriting import MNIST_SIZE, SEARCH_SIZE, read_digit
from imgclf.imaging.image_files import open_image, read_image

BLACK = 16  # grey levels; the border of an image of MNIST is darker


def arrays_to_batch(images: np.ndarray | Tensor | Sequence[np.ndarray | Tensor], channels: int) -> Tensor:
    """One tensor (N, C, H, W) of an array (H, W), (N, H, W), (C, H, W) or (N, C, H, W), or of a list of images.

    ``channels`` is C; it tells (C, H, W) from (N, H, W).

    Raises:
        ValueError: the images are neither uint8 nor floats in [0, 1], or they have several shapes.
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images))
    if isinstance(images, Tensor):
        batch = images
    else:
        tensors = [torch.as_tensor(image) for image in images]
        if len({(tensor.shape, tensor.dtype) for tensor in tensors}) > 1:
            raise ValueError("arrays of several shapes or types: give images of one shape and type at a time")
        batch = torch.stack([tensor[None] if tensor.ndim == 2 else tensor for tensor in tensors])
    if batch.dtype != torch.uint8 and not batch.is_floating_point():
        raise ValueError(f"images of {batch.dtype}: give uint8, or floats in [0, 1]")
    if batch.is_floating_point() and batch.numel() and not (batch.min() >= 0 and batch.max() <= 1):
        raise ValueError("float images must lie in [0, 1]; give 0..255 as uint8")
    if batch.ndim == 2 or (batch.ndim == 3 and len(batch) == channels and channels > 1):
        batch = batch[None]
    return batch[:, None] if batch.ndim == 3 else batch


def read_scaled(source: str | Path | Image.Image, image_shape: tuple[int, int, int]) -> tuple[Tensor, None]:
    """An image file or PIL image, scaled to uint8 ``image_shape``; it has no fault."""
    return torch.from_numpy(read_image(source, image_shape)), None


def read_photo(
    source: str | Path | Image.Image, polarity: str, unless_scaled: bool = False
) -> tuple[Tensor, str | None]:
    """Turns a photograph of one handwritten digit into an image like MNIST's, uint8 (1, 28, 28).

    With the image comes the reason why the photograph shows no single digit, or None. An image like those that the
    network was trained on (``_is_like_mnist``) is taken as it is if ``unless_scaled``. The polarity is that of the
    result: "light_on_dark" as in MNIST, "dark_on_light", or "any", which gives the first.
    """
    side = 4 * SEARCH_SIZE
    image = open_image(source, side)
    if unless_scaled and _is_like_mnist(image, polarity):
        return read_scaled(image, (1, MNIST_SIZE, MNIST_SIZE))
    photo = image.convert("RGB")
    if (factor := max(photo.size) // side) > 1:  # the search takes memory; JPEGs are decoded at this size already
        photo = photo.reduce(factor)
    digit = read_digit(np.asarray(photo))
    pixels = 255 - digit.image if polarity == "dark_on_light" else digit.image
    return torch.from_numpy(pixels[None]), digit.fault


def _is_like_mnist(image: Image.Image, polarity: str) -> bool:
    """Whether an image has MNIST's size and its ground, rather than being a small photograph or drawing.

    The ground is that of the border's 108 pixels: black in all of MNIST's images, and not black for a network of dark
    digits. The polarity "any" is that of a network whose digits have grounds of every kind.
    """
    if image.size != (MNIST_SIZE, MNIST_SIZE):
        return False
    is_border = np.pad(np.zeros((MNIST_SIZE - 2, MNIST_SIZE - 2), bool), 1, constant_values=True)
    is_black = np.median(np.asarray(image.convert("L"))[is_border]) < BLACK
    return polarity == "any" or is_black == (polarity == "light_on_dark")

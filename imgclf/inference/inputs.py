"""Turns what a user has (arrays, image files, PIL images) into inputs of a network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imgclf.imaging.handwriting import MNIST_SIZE, read_digit
from imgclf.imaging.image_files import Fit, Source, find_images, open_image, read_image
from imgclf.imaging.ink import SEARCH_SIZE

BLACK = 16  # grey levels; the background of MNIST's images is darker
LIGHT = 127  # grey levels; a light background is lighter


def to_sources(images: Any, image_shape: tuple[int, int, int], bits: int) -> Tensor | Sequence[Source]:
    """Turns what a user has into one tensor (``arrays_to_images``) or a list of what ``read_image`` reads.

    Args:
        images: arrays, paths, folders, globs, the bytes of image files, open files or PIL images; one or several.

    Raises:
        ValueError: something else.
        FileNotFoundError: a folder or glob without images.
    """
    if isinstance(images, np.ndarray | Tensor):
        return arrays_to_images(images, image_shape, bits)
    if isinstance(images, str | Path | bytes | Image.Image) or hasattr(images, "read"):
        images = [images]
    elif not hasattr(images, "__iter__"):
        raise ValueError(f"images={images}: give an array, a path, a PIL image, bytes, an open file, or a list of them")
    images, found = list(images), []
    if images and all(isinstance(image, np.ndarray | Tensor) for image in images):
        tensors = [_to_tensor(image, bits) for image in images]
        if len({(tensor.shape, tensor.dtype) for tensor in tensors}) == 1:
            return arrays_to_images(torch.stack(tensors), image_shape, bits)
    for image in images:
        if isinstance(image, np.ndarray | Tensor):
            read = arrays_to_images(image, image_shape, bits)
            found += _to_pil(read) if isinstance(read, Tensor) else read
        elif isinstance(image, str | Path):
            many = not Path(image).is_file() and (Path(image).is_dir() or set("*?[") & set(str(image)))
            found += find_images(str(image)) if many else [image]
        elif isinstance(image, bytes | Image.Image) or hasattr(image, "read"):
            found.append(image)
        else:
            raise ValueError(f"images={type(image).__name__}: give arrays, paths, PIL images, bytes or open files")
    return found


def arrays_to_images(
    images: np.ndarray | Tensor, image_shape: tuple[int, int, int], bits: int = 16
) -> Tensor | list[Image.Image]:
    """Images of ``image_shape`` as one tensor (N, C, H, W); images of another size or colour as PIL images.

    Args:
        images: one image (H, W), (H, W, C) or (C, H, W); or several, (N, H, W), (N, C, H, W) or (N, H, W, C). uint8,
            bool, float in [0, 1], or uint16 of which ``bits`` are in use.
        image_shape: C, H, W of the network's inputs.

    Raises:
        ValueError: other values, or a shape that can be read in two ways.
    """
    batch = _to_tensor(images, bits)
    channels, size = image_shape[0], image_shape[1:]
    if batch.ndim == 2:
        batch = batch[None, None]
    elif batch.ndim == 3:
        if batch.shape == image_shape and channels > 1:
            batch = batch[None]
        elif batch.shape[1:] == size:
            batch = batch[:, None]
        elif _is_channels_last(batch):
            batch = batch.permute(2, 0, 1)[None]
        else:
            batch = batch[None] if len(batch) == 3 else batch[:, None]
    elif batch.ndim == 4 and batch.shape[1:] != image_shape and _is_channels_last(batch[0]):
        batch = batch.permute(0, 3, 1, 2)
    if batch.ndim != 4 or batch.shape[1] not in (1, 3, 4):
        raise ValueError(f"array of shape {tuple(batch.shape)}: give (H, W), (H, W, C), (C, H, W), or several of them")
    return batch if batch.shape[1:] == image_shape else _to_pil(batch)


def _to_tensor(image: np.ndarray | Tensor, bits: int) -> Tensor:
    # torch takes no array that is read-only or reversed.
    tensor = torch.from_numpy(np.require(image, requirements=["C", "W"])) if isinstance(image, np.ndarray) else image
    if tensor.dtype == torch.bool:
        return tensor.to(torch.uint8) * 255
    if tensor.dtype == torch.uint16:  # as files of 16 bits are read
        return (tensor.double() * (255 / (2**bits - 1)) + 1e-4).clamp(max=255).to(torch.uint8)
    if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
        raise ValueError(f"images of {tensor.dtype}: give uint8, uint16, or floats in [0, 1]")
    if tensor.is_floating_point() and tensor.numel() and not (tensor.min() >= 0 and tensor.max() <= 1):
        raise ValueError("float images must lie in [0, 1]; give 0..255 as uint8")
    return tensor


def _is_channels_last(image: Tensor) -> bool:
    """Whether an image of three axes is (H, W, C) and not (C, H, W)."""
    first, last = image.shape[0] in (1, 3, 4), image.shape[2] in (1, 3, 4)
    if first and last:
        raise ValueError(f"array of shape {tuple(image.shape)}: is it (C, H, W) or (H, W, C)? give a larger image")
    return last


def _to_pil(batch: Tensor) -> list[Image.Image]:
    if batch.is_floating_point():
        batch = batch.mul(255).round().to(torch.uint8)
    pixels = batch.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(image[..., 0] if image.shape[2] == 1 else image) for image in pixels]


def read_scaled(
    source: Source,
    image_shape: tuple[int, int, int],
    fit: Fit = "stretch",
    bits: int = 16,
    *,
    invert_light: bool = False,
) -> tuple[Tensor, None]:
    """An image scaled to uint8 ``image_shape``; it has no fault.

    With ``invert_light`` an image on a light background is inverted, for a network that knows light digits on black.
    """
    pixels = read_image(source, image_shape, fit, bits)
    if invert_light and _background_level(pixels) > LIGHT:
        pixels = 255 - pixels
    return torch.from_numpy(pixels), None


def read_photo(source: Source, polarity: str, unless_scaled: bool = False) -> tuple[Tensor, str | None]:
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
    """Whether an image has MNIST's size and background; else it is a small photograph or drawing.

    The background of all of MNIST's images is black. A network of dark digits expects one that is not black, and a
    network of the polarity "any" accepts every background.
    """
    if image.size != (MNIST_SIZE, MNIST_SIZE):
        return False
    is_black = _background_level(np.asarray(image.convert("L"))) < BLACK
    return polarity == "any" or is_black == (polarity == "light_on_dark")


def _background_level(pixels: np.ndarray) -> float:
    """The median grey level of the outermost pixels of an image (..., H, W)."""
    border = np.ones(pixels.shape[-2:], bool)
    border[1:-1, 1:-1] = False
    return float(np.median(pixels[..., border]))

"""Finds image files, and reads them into the one form that everything else works on."""

import contextlib
import glob
import threading
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from imgclf.core.text import printable

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MAX_BYTES = 2**28  # of a file
MAX_PIXELS = 89_478_485  # of an image as its file describes it; Pillow warns of larger ones
MAX_DECODED_PIXELS = 50_000_000  # of an image as it is decoded, which takes up to ten bytes a pixel
LARGE_IMAGE = 2**24  # pixels; of larger images only one is decoded at a time, whatever the number of threads
_large_image_lock = threading.Lock()


def read_image(source: str | Path | Image.Image, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Reads an image file, or a PIL image, and stretches it to a fixed size.

    Args:
        source: a path or PIL image, opened by ``open_image``.
        image_shape: channels (1 is grey, 3 is RGB), height, width.

    Returns:
        uint8 of ``image_shape``, scaled with bilinear interpolation and anti-aliasing.

    Raises:
        OSError, ValueError: as of ``open_image``.

    Example:
        >>> read_image("xray.jpeg", (1, 224, 224)).shape
        (1, 224, 224)
    """
    channels, height, width = image_shape
    image = open_image(source, max(height, width))
    mode = "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image).reshape(height, width, channels).transpose(2, 0, 1)


def open_image(source: str | Path | Image.Image, min_side: int, mode: str | None = None) -> Image.Image:
    """Decodes an image file, or a PIL image, into 8 bits a channel.

    The image is turned upright as its EXIF tag says. Transparency becomes white, 16 bits become 8. The content tells
    the format, not the file's ending. Of several frames the first is taken.

    Args:
        source: a path or PIL image.
        min_side: the pixels that are needed of the longer side; a larger JPEG may be decoded at a smaller size.
        mode: "L" if only grey is needed of a JPEG.

    Raises:
        OSError: the file is missing, damaged, of none of ``FORMATS``, of 32 bits (whose range is unknown), or larger
            than ``MAX_BYTES``, ``MAX_PIXELS`` or ``MAX_DECODED_PIXELS``; the message starts with the path.
        ValueError: a PIL image of 32 bits, or larger than ``MAX_DECODED_PIXELS``.
    """
    if isinstance(source, Image.Image):
        _check_size(source, MAX_DECODED_PIXELS)
        return _to_eight_bits(source.copy())
    if not Path(source).is_file():
        raise FileNotFoundError(f"{printable(source)}: no such file, or a link that leads nowhere")
    try:
        if (size := Path(source).stat().st_size) > MAX_BYTES:
            raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}")
        with Image.open(source, formats=FORMATS) as image:
            _check_size(image, MAX_PIXELS)
            image.draft(mode, (min_side, min_side))  # lets a JPEG be decoded at a smaller size
            _check_size(image, MAX_DECODED_PIXELS)
            is_large = image.width * image.height > LARGE_IMAGE
            with _large_image_lock if is_large else contextlib.nullcontext():
                return _to_eight_bits(image)
    except Exception as error:  # Pillow's decoders raise many kinds of errors on damaged files
        reason = "no image" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
        raise OSError(f"{printable(source)}: not a readable image ({reason or type(error).__name__})") from error


def find_images(images: str) -> list[Path]:
    """The image files that a path or pattern names, sorted.

    Args:
        images: a file, a folder (every image below it), or a glob (``**`` crosses folders).

    Raises:
        FileNotFoundError: there are no such images.
    """
    path = Path(images).expanduser()
    if path.is_file():
        return [path]
    candidates = path.rglob("*") if path.is_dir() else (Path(name) for name in glob.glob(str(path), recursive=True))
    found = sorted(file for file in candidates if file.is_file() and file.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(f"images={images}: no image ({', '.join(SUFFIXES)}) is there")
    return found


def find_folder(root: str, data_dir: str | Path) -> Path:
    """The folder that ``root`` names, as seen from here or else from ``data_dir``.

    Raises:
        FileNotFoundError: there is no such folder in either place.
    """
    path = Path(root).expanduser()
    places = [path.absolute(), (Path(data_dir).expanduser() / path).absolute()]
    for place in places:
        if place.is_dir():
            return place
    looked_at = " or ".join(map(printable, dict.fromkeys(places)))
    raise FileNotFoundError(f"root={root}: no such folder ({looked_at}); give it as root=DIR")


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ValueError(f"{image.width}x{image.height} pixels, more than {max_pixels:,}: make it smaller")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """The image upright, with 8 bits a channel, and white where it is transparent."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)  # in place, because a copy of a large image takes much memory
    if image.mode == "F" or (image.mode == "I" and any(value not in range(2**16) for value in image.getextrema())):
        raise ValueError("pixels of 32 bits: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        image = image if image.mode == "I" else image.convert("I")
        image = image.point(lambda value: value * (1 / 257) + 1e-4).convert("L")  # 1e-4 makes up for rounding errors
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        paper = Image.new(image.mode.removesuffix("A"), image.size, "white")
        paper.paste(image if image.mode == "RGBA" else image.getchannel("L"), mask=image.getchannel("A"))
        image = paper
    return image

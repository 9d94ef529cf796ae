"""Image files: finding them and reading them into the one form everything else works on."""

import contextlib
import glob
import threading
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from imgclf.core.text import printable

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
MAX_PIXELS, MAX_BYTES = 89_478_485, 2**28  # at most, of a file; Pillow begins to warn of bombs there
MAX_DECODED = 50_000_000  # pixels at most; while an image is read it takes up to ten bytes a pixel
_large = threading.Lock()  # larger ones than this are read one after another, whatever the number of threads
LARGE = 2**24


def read_image(source: str | Path | Image.Image, image_shape: tuple[int, int, int]) -> np.ndarray:
    """An image file, or a PIL image, as uint8 of ``image_shape`` (channels, height, width).

    Of what ``open_image`` gives, to grey or RGB, stretched to height and width (bilinear, anti-aliased).
    """
    channels, height, width = image_shape
    image = open_image(source, max(height, width))
    mode = "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.array(image).reshape(height, width, channels).transpose(2, 0, 1)


def open_image(source: str | Path | Image.Image, side: int, mode: str | None = None) -> Image.Image:
    """An image file, or a PIL image, decoded.

    Turned as its EXIF tag says, transparency over white, 16 bits to 8; 32 bits, whose range nothing tells, are refused.
    The content tells the format, not the file's ending; of several frames the first counts.

    Args:
        source: what to open.
        side: pixels that are wanted of the longer side at least; a larger JPEG need not be decoded at its full size.
        mode: "L" if grey is all that is wanted of a JPEG.

    Raises:
        OSError: missing, damaged, none of ``FORMATS``, of 32 bits, or larger than ``MAX_BYTES``,
            ``MAX_PIXELS`` or, once decoded, ``MAX_DECODED``; the message starts with the path.
        ValueError: a PIL image of 32 bits, or larger than ``MAX_DECODED``.
    """
    if isinstance(source, Image.Image):
        _refuse_bomb(source, MAX_DECODED)
        return _upright(source.copy())
    if not Path(source).is_file():
        raise FileNotFoundError(f"{printable(source)}: no such file, or a link that leads nowhere")
    try:
        if (size := Path(source).stat().st_size) > MAX_BYTES:
            raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}")
        with Image.open(source, formats=FORMATS) as image:
            _refuse_bomb(image, MAX_PIXELS)
            image.draft(mode, (side,) * 2)
            _refuse_bomb(image, MAX_DECODED)
            with _large if image.width * image.height > LARGE else contextlib.nullcontext():
                return _upright(image)
    except Exception as error:  # Pillow's decoders raise many things on damaged files
        reason = "no image" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
        raise OSError(f"{printable(source)}: not a readable image ({reason or type(error).__name__})") from error


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


def find_folder(root: str, data_dir: str) -> Path:
    """Where the folder ``root`` is, as seen from here or else from ``data_dir``.

    Raises:
        FileNotFoundError: in neither place.
    """
    path = Path(root).expanduser()
    places = [path.absolute(), (Path(data_dir).expanduser() / path).absolute()]
    if not any(place.is_dir() for place in places):
        looked = " or ".join(map(printable, dict.fromkeys(places)))
        raise FileNotFoundError(f"data.root={root}: no such folder ({looked}); give it as data.root=DIR")
    return next(place for place in places if place.is_dir())


def _refuse_bomb(image: Image.Image, most: int) -> None:
    if image.width * image.height > most:
        raise ValueError(f"{image.width}x{image.height} pixels, more than {most:,}: make it smaller")


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    ImageOps.exif_transpose(image, in_place=True)  # every copy of a large image counts
    if image.mode == "F" or (image.mode == "I" and any(value not in range(2**16) for value in image.getextrema())):
        raise ValueError("pixels of 32 bits: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255; the sum is for rounding
        image = image if image.mode == "I" else image.convert("I")
        image = image.point(lambda value: value * (1 / 257) + 1e-4).convert("L")
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        paper = Image.new(image.mode.removesuffix("A"), image.size, "white")
        paper.paste(image if image.mode == "RGBA" else image.getchannel("L"), mask=image.getchannel("A"))
        image = paper
    return image

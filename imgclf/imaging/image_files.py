"""Finds image files, and reads them into the one form that everything else works on."""

import contextlib
import glob
import importlib.util
import io
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from imgclf.core.text import printable
from imgclf.imaging.formats import EXTRA_READERS, check_size, kind_of_content, load_extra, read_dicom

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"),
    *(ending for package, endings in EXTRA_READERS.items() if importlib.util.find_spec(package) for ending in endings),
)
# What programs leave in folders of images; hidden files and folders are left alone too.
JUNK = ("@eadir", "__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "#recycle", "lost+found", "__pycache__")
MAX_BYTES = 2**28  # of a file
MAX_PIXELS = 89_478_485  # of an image as its file describes it; Pillow warns of larger ones
MAX_DECODED_PIXELS = 50_000_000  # of an image as it is decoded, which takes up to ten bytes a pixel
LARGE_IMAGE = 2**24  # pixels; of larger images only one is decoded at a time, whatever the number of threads
_large_image_lock = threading.Lock()

Source: TypeAlias = str | Path | bytes | IO[bytes] | Image.Image  # what an image is read from
Fit = Literal["stretch", "pad", "crop"]


def read_image(source: Source, image_shape: tuple[int, int, int], fit: Fit = "stretch", bits: int = 16) -> np.ndarray:
    """Reads an image and brings it to a fixed size.

    Args:
        source: a path, the bytes of a file, an open file or a PIL image, opened by ``open_image``.
        image_shape: channels (1 is grey, 3 is RGB), height, width.
        fit: an image of another aspect ratio is stretched, or scaled and padded with black, or scaled and cropped.
        bits: that are in use of images of 16 bits, from 8 to 16; the largest number of so many bits becomes white.

    Returns:
        uint8 of ``image_shape``, scaled with bilinear interpolation and anti-aliasing.

    Raises:
        OSError, ValueError: as of ``open_image``.

    Example:
        >>> read_image("xray.jpeg", (1, 224, 224)).shape
        (1, 224, 224)
    """
    channels, height, width = image_shape
    image = open_image(source, max(height, width), bits=bits)
    mode = "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)
    if fit == "stretch":
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    else:
        bring = ImageOps.pad if fit == "pad" else ImageOps.fit
        image = bring(image, (width, height), Image.Resampling.BILINEAR)
    return np.array(image).reshape(height, width, channels).transpose(2, 0, 1)


def open_image(source: Source, min_side: int, mode: str | None = None, bits: int = 16) -> Image.Image:
    """Decodes an image into 8 bits a channel.

    The image is turned upright as its EXIF tag says. Transparency becomes white. The content tells the format, not the
    file's ending. Of several frames the first is taken, but a DICOM file of several is refused. HEIF and DICOM need the
    extra "formats"; the window of a DICOM file is applied, and MONOCHROME1 is inverted.

    Args:
        source: a path, the bytes of a file, an open file or a PIL image.
        min_side: the pixels that are needed of the longer side; a larger JPEG may be decoded at a smaller size.
        mode: "L" if only grey is needed of a JPEG.
        bits: see ``read_image``.

    Raises:
        OSError: the file is missing, damaged, of an unknown format or of 32 bits, or too large (``MAX_BYTES``,
            ``MAX_PIXELS``, ``MAX_DECODED_PIXELS``); the message starts with the path.
        ValueError: a PIL image of 32 bits, or larger than ``MAX_DECODED_PIXELS``.
    """
    if isinstance(source, Image.Image):
        check_size(*source.size, MAX_DECODED_PIXELS)
        if (own_file := _jpeg_file(source)) is None:
            return _to_eight_bits(source.copy(), bits)
        source = own_file
    name = printable(source) if isinstance(source, str | Path) else "image"
    if isinstance(source, str | Path) and not Path(source).is_file():
        raise FileNotFoundError(f"{name}: no such file, or a link that leads nowhere")
    try:
        with contextlib.ExitStack() as opened:
            file: IO[bytes]
            if isinstance(source, str | Path):
                file = opened.enter_context(Path(source).open("rb"))
            else:
                # A file that was opened as text has its bytes in a buffer.
                file = io.BytesIO(source) if isinstance(source, bytes) else getattr(source, "buffer", source)
            file.seek(0, os.SEEK_END)
            if (size := file.tell()) > MAX_BYTES:
                raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}")
            file.seek(0)
            kind = kind_of_content(file.read(132))
            file.seek(0)
            if kind == "DICOM":
                return read_dicom(file, MAX_DECODED_PIXELS)
            if kind == "HEIF":
                load_extra("pillow_heif").register_heif_opener()
            elif kind:
                raise ValueError(f"the content is {kind}")
            image = opened.enter_context(Image.open(file, formats=(*FORMATS, "HEIF") if kind else FORMATS))
            check_size(*image.size, MAX_PIXELS)
            image.draft(mode, (min_side, min_side))  # lets a JPEG be decoded at a smaller size
            check_size(*image.size, MAX_DECODED_PIXELS)
            is_large = image.width * image.height > LARGE_IMAGE
            with _large_image_lock if is_large else contextlib.nullcontext():
                return _to_eight_bits(image, bits)
    except Exception as error:  # Pillow's decoders raise many kinds of errors on damaged files
        reason = "no image" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
        raise OSError(f"{name}: not a readable image ({reason or type(error).__name__})") from error


def _jpeg_file(image: Image.Image) -> IO[bytes] | str | None:
    """The file of a JPEG image, to decode it at the size at which the file itself would be; None if there is none.

    Of an image that was decoded in full before, the file still has to hold the same pixels.
    """
    if not isinstance(image, JpegImageFile):
        return None
    if image.tile and image.fp:
        return image.fp
    with contextlib.suppress(OSError, ValueError), Image.open(image.filename, formats=["JPEG"]) as file:
        return str(image.filename) if file == image else None
    return None


def missing_reader(ending: str) -> bool:
    """Whether files with this ending would be read if the extra "formats" were installed."""
    return ending not in SUFFIXES and any(ending in endings for endings in EXTRA_READERS.values())


def is_junk(path: str | Path) -> bool:
    """Whether a file or folder is hidden, or one that programs leave without being asked."""
    name = os.path.basename(path)
    return name.startswith(".") or name.lower() in JUNK


def find_images(images: str | Sequence[str | Path], unread: Counter[str] | None = None) -> list[Path]:
    """The image files that a path, a pattern or a list of these names; each is sorted, and no file comes twice.

    Args:
        images: a file, a folder (every image below it), or a glob (``**`` crosses folders). Hidden files and what
            programs leave are passed over.
        unread: counts the endings of the other files that are passed over.

    Raises:
        FileNotFoundError: there are no such images.
    """
    unread = Counter() if unread is None else unread
    if not isinstance(images, str):
        return list(dict.fromkeys(file for one in images for file in find_images(str(one), unread)))
    path = Path(images).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        files = sorted(walk_images(path, unread))
    else:
        typed = set(path.parts)  # what the pattern names itself is meant
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
        found = [file for file in found if file.is_file() and not any(is_junk(p) for p in {*file.parts} - typed)]
        # Where links lead in circles, the shortest of a file's paths counts.
        places = {
            (os.path.realpath(file.parent), file.name): file
            for file in sorted(found, key=lambda file: -len(file.parts))
        }
        found = list(places.values())
        unread.update(file.suffix.lower() for file in found if file.suffix.lower() not in SUFFIXES)
        files = sorted(file for file in found if file.suffix.lower() in SUFFIXES)
    if not files:
        others = f"; {describe_unread(unread)}" if unread else ""
        raise FileNotFoundError(f"images={images}: no image ({', '.join(SUFFIXES)}) is there{others}")
    return files


def walk_images(folder: Path, unread: Counter[str]) -> Iterator[Path]:
    """The image files below a folder; of other files the endings are counted. Links to folders are followed once."""
    visited = set()
    for subfolder, subfolders, names in os.walk(folder, followlinks=True):
        if (place := os.path.realpath(subfolder)) in visited:
            subfolders.clear()
            continue
        visited.add(place)
        subfolders[:] = [name for name in subfolders if not is_junk(name)]
        for path in (Path(subfolder, name) for name in names):
            if path.suffix.lower() in SUFFIXES and not is_junk(path):
                yield path
            elif not is_junk(path):
                unread[path.suffix.lower()] += 1


def describe_unread(unread: Counter[str]) -> str:
    """What was passed over, in one line with the number of files of each ending."""
    counts = ", ".join(f"{count} {ending or 'without an ending'}" for ending, count in unread.most_common(8))
    missing = ", ".join(filter(missing_reader, unread))
    hint = f"; {missing} need: pip install -e '.[formats]'" if missing else ""
    return f"passed over {unread.total()} files that are not read as images: {counts}{hint}"


def sixteen_bit_maximum(file: Path) -> int | None:
    """The largest value of an image of 16 bits; None for any other file, or one that cannot be read."""
    with contextlib.suppress(Exception), Image.open(file, formats=FORMATS) as image:
        if image.mode.startswith("I"):
            return int(np.asarray(image).max())
    return None


def _to_eight_bits(image: Image.Image, bits: int) -> Image.Image:
    """The image upright, with 8 bits a channel, and white where it is transparent."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)  # in place, because a copy of a large image takes much memory
    if image.mode == "F" or (image.mode == "I" and any(value not in range(2**16) for value in image.getextrema())):
        raise ValueError("pixels of 32 bits: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        image = image if image.mode == "I" else image.convert("I")
        scale = 255 / (2**bits - 1)
        image = image.point(lambda value: value * scale + 1e-4).convert("L")  # 1e-4 makes up for rounding errors
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        paper = Image.new(image.mode.removesuffix("A"), image.size, "white")
        paper.paste(image if image.mode == "RGBA" else image.getchannel("L"), mask=image.getchannel("A"))
        image = paper
    return image

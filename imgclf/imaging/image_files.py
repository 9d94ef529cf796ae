"""Finds image files, and reads them into the one form that everything else works on."""

import contextlib
import glob
import importlib
import importlib.util
import io
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageFile, ImageOps

from imgclf.core.text import printable

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM")
# Each package of the extra "formats" with the endings of the files that it reads.
EXTRA_READERS = {"pillow_heif": (".heic", ".heif", ".hif"), "pydicom": (".dcm", ".dicom")}
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


def read_image(source: Source, image_shape: tuple[int, int, int], fit: Fit = "stretch", bits: int = 8) -> np.ndarray:
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


def open_image(source: Source, min_side: int, mode: str | None = None, bits: int = 8) -> Image.Image:
    """Decodes an image into 8 bits a channel.

    The image is turned upright as its EXIF tag says. Transparency becomes white. The content tells the format, not the
    file's ending. Of several frames the first is taken, but a DICOM file of several is refused. HEIF and DICOM need the
    extra "formats"; the window of a DICOM file is applied, and MONOCHROME1 is inverted.

    Args:
        source: a path, the bytes of a file, an open file or a PIL image.
        min_side: the pixels that are needed of the longer side; a larger JPEG may be decoded at a smaller size.
        mode: "L" if only grey is needed of a JPEG.
        bits: see ``read_image``; where 8 are in use, images of 16 bits are taken to use all 16.

    Raises:
        OSError: the file is missing, damaged, of an unknown format or of 32 bits, or too large (``MAX_BYTES``,
            ``MAX_PIXELS``, ``MAX_DECODED_PIXELS``); the message starts with the path.
        ValueError: a PIL image of 32 bits, or larger than ``MAX_DECODED_PIXELS``.
    """
    if isinstance(source, Image.Image):
        _check_size(*source.size, MAX_DECODED_PIXELS)
        if not (isinstance(source, ImageFile.ImageFile) and source.tile and source.fp):
            return _to_eight_bits(source.copy(), bits)
        source = source.fp  # nothing is decoded yet, so it is decoded as the file itself would be
    name = printable(source) if isinstance(source, str | Path) else "image"
    if isinstance(source, str | Path) and not Path(source).is_file():
        raise FileNotFoundError(f"{name}: no such file, or a link that leads nowhere")
    try:
        with contextlib.ExitStack() as opened:
            file: IO[bytes]
            if isinstance(source, str | Path):
                file = opened.enter_context(Path(source).open("rb"))
            else:
                file = io.BytesIO(source) if isinstance(source, bytes) else source
            file.seek(0, os.SEEK_END)
            if (size := file.tell()) > MAX_BYTES:
                raise ValueError(f"{size:,} bytes, more than {MAX_BYTES:,}")
            file.seek(0)
            kind = kind_of_content(file.read(132))
            file.seek(0)
            if kind == "DICOM":
                return _read_dicom(file)
            if kind == "HEIF":
                _extra("pillow_heif").register_heif_opener()
            elif kind:
                raise ValueError(f"the content is {kind}")
            image = opened.enter_context(Image.open(file, formats=(*FORMATS, "HEIF") if kind else FORMATS))
            _check_size(*image.size, MAX_PIXELS)
            image.draft(mode, (min_side, min_side))  # lets a JPEG be decoded at a smaller size
            _check_size(*image.size, MAX_DECODED_PIXELS)
            is_large = image.width * image.height > LARGE_IMAGE
            with _large_image_lock if is_large else contextlib.nullcontext():
                return _to_eight_bits(image, bits)
    except Exception as error:  # Pillow's decoders raise many kinds of errors on damaged files
        reason = "no image" if isinstance(error, Image.UnidentifiedImageError) else " ".join(str(error).split())
        raise OSError(f"{name}: not a readable image ({reason or type(error).__name__})") from error


def kind_of_content(start: bytes) -> str | None:
    """What a file is whose first 132 bytes these are, if Pillow alone cannot read it and it is easy to tell."""
    if start[128:132] == b"DICM":
        return "DICOM"
    if start[4:8] == b"ftyp":
        return "AVIF" if start[8:12] in (b"avif", b"avis") else "HEIF"
    known = {b"%PDF": "a PDF", b"<": "HTML or XML", b"PK\x03\x04": "a ZIP archive", b"8BPS": "a Photoshop file"}
    return next((kind for first, kind in known.items() if start.lstrip().startswith(first)), None)


def missing_reader(ending: str) -> bool:
    """Whether files with this ending would be read if the extra "formats" were installed."""
    return ending not in SUFFIXES and any(ending in endings for endings in EXTRA_READERS.values())


def is_junk(path: Path) -> bool:
    """Whether a file or folder is hidden, or one that programs leave without being asked."""
    return path.name.startswith(".") or path.name.lower() in JUNK


def find_images(images: str | Sequence[str]) -> list[Path]:
    """The image files that a path, a pattern or a list of these names; each is sorted.

    Args:
        images: a file, a folder (every image below it), or a glob (``**`` crosses folders). Hidden files and what
            programs leave are passed over.

    Raises:
        FileNotFoundError: there are no such images.
    """
    if not isinstance(images, str):
        return [file for one in images for file in find_images(one)]
    path = Path(images).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [
            file
            for file in path.rglob("*")
            if not any(map(is_junk, (file.relative_to(path), *file.relative_to(path).parents[:-1])))
        ]
    else:
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
    files = sorted(file for file in found if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        wanted = ", ".join(SUFFIXES)
        unread = any(missing_reader(file.suffix.lower()) for file in found)
        hint = "; HEIF and DICOM need: pip install -e '.[formats]'" if unread else ""
        raise FileNotFoundError(f"images={images}: no image ({wanted}) is there{hint}")
    return files


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


def _extra(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError("reading it needs: pip install -e '.[formats]'") from error


def _read_dicom(file: IO[bytes]) -> Image.Image:
    """The only frame of a DICOM file with its window applied, grey or RGB."""
    pydicom, pixels = _extra("pydicom"), _extra("pydicom.pixels")
    dataset = pydicom.dcmread(file)
    if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise ValueError(f"{frames} frames: export the one that is meant as a file of its own")
    _check_size(dataset.Columns, dataset.Rows, MAX_DECODED_PIXELS)
    values = pixels.pixel_array(dataset)  # colours come as RGB
    if values.ndim == 3:
        return Image.fromarray(values.astype(np.uint8), "RGB")
    values = pixels.apply_modality_lut(values, dataset).astype(np.float64)
    if dataset.get("VOILUTSequence"):
        values = pixels.apply_voi_lut(values.astype(np.int64), dataset, prefer_lut=True)
    low, high = values.min(), values.max()
    if dataset.get("WindowWidth"):  # the first window, if there are several
        centre, width = (float(np.atleast_1d(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        low, high = centre - width / 2, centre + width / 2 - 1
        values = values.clip(low, high)
    grey = ((values - low) * (255 / max(high - low, 1e-9))).round().astype(np.uint8)
    return Image.fromarray(255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey, "L")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ValueError(f"{width}x{height} pixels, more than {max_pixels:,}: make it smaller")


def sixteen_bit_maximum(file: Path) -> int | None:
    """The largest value of an image of 16 bits; None for any other file, or one that cannot be read."""
    with contextlib.suppress(Exception), Image.open(file, formats=FORMATS) as image:
        if image.mode.startswith("I"):
            return int(np.asarray(image).max())
    return None


def _to_eight_bits(image: Image.Image, bits: int = 8) -> Image.Image:
    """The image upright, with 8 bits a channel, and white where it is transparent."""
    image.load()
    ImageOps.exif_transpose(image, in_place=True)  # in place, because a copy of a large image takes much memory
    if image.mode == "F" or (image.mode == "I" and any(value not in range(2**16) for value in image.getextrema())):
        raise ValueError("pixels of 32 bits: save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        image = image if image.mode == "I" else image.convert("I")
        scale = 255 / (2**bits - 1) if bits > 8 else 1 / 257
        image = image.point(lambda value: value * scale + 1e-4).convert("L")  # 1e-4 makes up for rounding errors
    if image.has_transparency_data:
        image = image if image.mode in ("LA", "RGBA") else image.convert("RGBA")
        paper = Image.new(image.mode.removesuffix("A"), image.size, "white")
        paper.paste(image if image.mode == "RGBA" else image.getchannel("L"), mask=image.getchannel("A"))
        image = paper
    return image

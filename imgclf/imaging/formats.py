"""Formats that Pillow does not read by itself: HEIF and DICOM, by the extra "formats"."""

import importlib
from typing import IO, Any

import numpy as np
from PIL import Image

# Each package of the extra "formats" with the endings of the files that it reads.
EXTRA_READERS = {"pillow_heif": (".heic", ".heif", ".hif"), "pydicom": (".dcm", ".dicom")}


def kind_of_content(start: bytes) -> str | None:
    """What a file is whose first 132 bytes these are, if Pillow alone cannot read it and it is easy to tell."""
    if start[128:132] == b"DICM":
        return "DICOM"
    if start[4:8] == b"ftyp":
        brands = {b"avif": "AVIF", b"avis": "AVIF", **dict.fromkeys((b"qt  ", b"isom", b"mp41", b"mp42"), "a video")}
        return brands.get(start[8:12], "HEIF")
    known = {b"%PDF": "a PDF", b"<": "HTML or XML", b"PK\x03\x04": "a ZIP archive", b"8BPS": "a Photoshop file"}
    return next((kind for first, kind in known.items() if start.lstrip().startswith(first)), None)


def load_extra(package: str) -> Any:
    """A module of the extra "formats"; ValueError says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError("reading it needs: pip install -e '.[formats]'") from error


def read_dicom(file: IO[bytes], max_pixels: int) -> Image.Image:
    """The only frame of a DICOM file with its window applied, grey or RGB."""
    pydicom, pixels = load_extra("pydicom"), load_extra("pydicom.pixels")
    dataset = pydicom.dcmread(file)
    if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise ValueError(f"{frames} frames: export the one that is meant as a file of its own")
    check_size(dataset.Columns, dataset.Rows, max_pixels)
    values = pixels.pixel_array(dataset)  # colours come as RGB
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        values = pixels.apply_color_lut(values, dataset)
    if values.ndim == 3:
        return Image.fromarray((values >> 8 * (values.itemsize - 1)).astype(np.uint8), "RGB")
    values = pixels.apply_modality_lut(values, dataset).astype(np.float64)
    if dataset.get("VOILUTSequence"):
        values = pixels.apply_voi_lut(values.astype(np.int64), dataset, prefer_lut=True)
    low, high = values.min(), values.max()
    if dataset.get("WindowWidth") and "WindowCenter" in dataset:  # the first window, if there are several
        centre, width = (float(np.atleast_1d(dataset[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        low, high = centre - width / 2, centre + width / 2 - 1
        values = values.clip(low, high)
    grey = ((values - low) * (255 / max(high - low, 1e-9))).round().astype(np.uint8)
    return Image.fromarray(255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey, "L")


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises ValueError for an image of more pixels."""
    if width * height > max_pixels:
        raise ValueError(f"{width}x{height} pixels, more than {max_pixels:,}: make it smaller")

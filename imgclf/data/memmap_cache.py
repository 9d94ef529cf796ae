"""Decodes image files once, into a memory-mapped array that later runs start from."""

import hashlib
import json
import logging
import mmap
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import filelock
import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from imgclf.core.text import printable
from imgclf.data.datasets import DIGEST_BYTES, ImageDataset, image_digest
from imgclf.imaging.image_files import Fit, read_image, sixteen_bit_maximum

log = logging.getLogger(__name__)

FORMAT_VERSION = 4  # if this number changes, every cache is built again
BLOCK_SIZE = 256  # images that are decoded between two writes
PROBED = 64  # if none of so many files has 16 bits, the other files are not opened to find out
SIXTEEN_BIT_SUFFIXES = (".png", ".tif", ".tiff", ".pgm")


class Form(NamedTuple):
    """What files are decoded into; see ``imgclf.imaging.image_files.read_image``."""

    image_shape: tuple[int, int, int]  # channels, height, width
    fit: Fit = "stretch"
    bits: int | None = 16  # None: as many as the files use


class MemmapImageDataset(ImageDataset):
    """Images in the .npy file that ``decode_files`` made, mapped into memory: only what a batch needs is read."""

    def __init__(self, path: Path, labels: Tensor, rows: Tensor | None = None) -> None:
        self.path = path
        array: Any = np.load(path, mmap_mode="r")
        self._map: mmap.mmap = array.base
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of memory that is read-only; nothing writes to it
            super().__init__(torch.from_numpy(array), labels, rows)

    def __getitem__(self, index: Tensor | slice | int) -> tuple[Tensor, Tensor]:
        batch = super().__getitem__(index)  # a copy
        if hasattr(mmap, "MADV_DONTNEED"):
            # The pages that were read leave this process (not the system's file cache), so that its memory stays flat.
            self._map.madvise(mmap.MADV_DONTNEED)
        return batch

    def digests(self) -> list[bytes]:
        notes = json.loads(self.path.with_suffix(".json").read_text())  # so that no image is read
        every = bytes.fromhex(notes["digests"])
        return [every[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES] for row in self.rows.tolist()]

    def __reduce__(self):  # a worker that is not forked maps the file itself
        return MemmapImageDataset, (self.path, self.labels, self.rows)


def decode_files(
    files: Sequence[Path], names: Sequence[str], form: Form, cache_dir: Path, owner: str
) -> tuple[Path, dict[str, str], int]:
    """Decodes files into ``cache_dir``, unless an earlier run has done so and none of them has changed since.

    Several runs may do this at the same time: one decodes, the others wait for it.

    Args:
        names: the name of each file. Names, file sizes and times of change tell whether a cache is still good.
        owner: names the files' folder and part; a new cache replaces older ones of the same owner.

    Returns:
        The .npy file, uint8 (N, channels, height, width), with zeros where a file could not be read; what is wrong with
        each unreadable file, by its name; and the bits that images of 16 bits were taken to use.
    """
    image_shape = form.image_shape
    owner_key = hashlib.sha256(os.fsencode(f"{owner} {image_shape}")).hexdigest()[:12]
    content_key = hashlib.sha256(repr((FORMAT_VERSION, form)).encode())
    for file, name in zip(files, names, strict=True):
        try:
            state = file.stat()
            size_and_time = state.st_size, state.st_mtime_ns
        except OSError:  # a broken link: reading it will report that
            size_and_time = None
        content_key.update(os.fsencode(name) + repr(size_and_time).encode())
    cache = cache_dir / f"{owner_key}-{content_key.hexdigest()[:20]}.npy"
    if (notes := _read_notes(cache, len(files), image_shape)) is not None:
        return cache, *notes
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(cache_dir / f".{owner_key}.lock"):
            if (notes := _read_notes(cache, len(files), image_shape)) is None:  # nobody built it in the meantime
                notes = _build(cache, files, names, form)
                for other in cache_dir.glob(f"*{owner_key}-*"):  # older caches, and what a killed run left unfinished
                    if other.stem != cache.stem:
                        other.unlink(missing_ok=True)
    except OSError as error:
        megabytes = np.ceil(len(files) * np.prod(image_shape) / 1e6)
        raise OSError(
            f"the decoded images cannot be kept in {cache_dir} ({error.strerror or error}): "
            f"{megabytes:,.0f} MB are needed; set cache_dir to another folder"
        ) from error
    return cache, *notes


def _read_notes(cache: Path, num_images: int, image_shape: tuple[int, int, int]) -> tuple[dict[str, str], int] | None:
    """The unreadable files that a complete cache was built without, and the bits; None if it is not complete."""
    try:
        is_complete = np.load(cache, mmap_mode="r").shape == (num_images, *image_shape)
        notes = json.loads(cache.with_suffix(".json").read_text())
        return (notes["faults"], notes["bits"]) if is_complete else None
    except (OSError, ValueError, EOFError):
        return None


def bits_in_use(files: Sequence[Path]) -> int:
    """The bits that the images of 16 bits among the files use: an even number from 8 to 16, or 16 of none."""
    candidates = [file for file in files if file.suffix.lower() in SIXTEEN_BIT_SUFFIXES]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        if not any(maximum is not None for maximum in pool.map(sixteen_bit_maximum, candidates[:PROBED])):
            return 16
        largest = max(filter(None, pool.map(sixteen_bit_maximum, candidates)), default=0)
    bits = largest.bit_length()
    return min(max(8, bits + bits % 2), 16)


def _build(cache: Path, files: Sequence[Path], names: Sequence[str], form: Form) -> tuple[dict[str, str], int]:
    faults: dict[str, str] = {}
    digests = []
    image_shape, fit, bits = form.image_shape, form.fit, form.bits or bits_in_use(files)

    def read(row: int) -> np.ndarray:
        try:
            return read_image(files[row], image_shape, fit, bits)
        except OSError as error:
            faults[names[row]] = str(error).removeprefix(f"{printable(files[row])}: ")
            return np.zeros(image_shape, np.uint8)

    unfinished = cache.with_name(f".{cache.name}.unfinished")
    try:
        with unfinished.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *image_shape)}
            np.lib.format.write_array_header_1_0(file, header)
            blocks = range(0, len(files), BLOCK_SIZE)
            for start in track(blocks, f"decoding {len(files):,} images, once", transient=True):
                for image in pool.map(read, range(start, min(start + BLOCK_SIZE, len(files)))):
                    file.write(image.tobytes())
                    digests.append(image_digest(np.ascontiguousarray(image)).hex())
            file.flush()
            os.fsync(file.fileno())
        cache.with_suffix(".json").write_text(json.dumps({"faults": faults, "bits": bits, "digests": "".join(digests)}))
        os.replace(unfinished, cache)
    finally:
        unfinished.unlink(missing_ok=True)
    log.info("decoded %d images into %s", len(files), cache)
    return faults, bits

"""Image files decoded once, into a memory-mapped array that later runs start from."""

import hashlib
import json
import logging
import mmap
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from imgclf.core.text import printable
from imgclf.data.datasets import DIGEST, ImageDataset, digest
from imgclf.imaging.image_files import read_image

log = logging.getLogger(__name__)

VERSION = 2  # of what a cache holds: a higher one makes every cache be built again
BLOCK = 256  # images decoded between two writes


class MemmapImageDataset(ImageDataset):
    """Images in an .npy file, uint8 (N, C, H, W), mapped into memory: only what a batch needs is read.

    Args:
        path: the file, as ``decode`` made it.
        labels: int64 (N,).
        rows: int64 (M,), the rows that belong to this split; all by default.
    """

    def __init__(self, path: Path, labels: Tensor, rows: Tensor | None = None) -> None:
        self.path = path
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, _ = np.lib.format.read_array_header_1_0(file)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            array = np.frombuffer(self._map, np.uint8, offset=file.tell()).reshape(shape)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nothing writes to it
            super().__init__(torch.from_numpy(array), labels, rows)

    def __getitem__(self, index: Tensor | slice | int) -> tuple[Tensor, Tensor]:
        batch = super().__getitem__(index)  # a copy
        if hasattr(mmap, "MADV_DONTNEED"):
            # What was read leaves this process (not the system's file cache): its memory stays flat over an epoch.
            self._map.madvise(mmap.MADV_DONTNEED)
        return batch

    def digests(self) -> list[bytes]:
        every = bytes.fromhex(_notes(self.path)["digests"])  # of a set larger than memory nothing else is read
        return [every[row * DIGEST : (row + 1) * DIGEST] for row in self.rows.tolist()]

    def __reduce__(self):  # for workers that are not forked
        return MemmapImageDataset, (self.path, self.labels, self.rows)


def decode(
    files: Sequence[Path], names: Sequence[str], shape: tuple[int, int, int], folder: Path, place: str
) -> tuple[Path, dict[str, str]]:
    """Decodes files into ``folder``, unless an earlier run has done so and none of them has changed since.

    Several runs may do this at the same time: one decodes, the others wait for it.

    Args:
        files: to be read.
        names: of the files, for the key; with sizes and times of change they tell whether a cache is still good.
        shape: channels, height, width.
        folder: of all caches.
        place: what the files are, such as folder and split; a new cache replaces older ones of the same place.

    Returns:
        The .npy file, uint8 (N, channels, height, width), zeros where a file could not be read; and name to fault of
        those.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    key, stem = hashlib.sha256(repr((VERSION, shape)).encode()), hashlib.sha256(os.fsencode(f"{place} {shape}"))
    for file, name in zip(files, names, strict=True):
        key.update(os.fsencode(name) + repr(_state(file)).encode())
    prefix = stem.hexdigest()[:12]
    cache = folder / f"{prefix}-{key.hexdigest()[:20]}.npy"
    if (faults := _faults(cache, len(files), shape)) is not None:
        return cache, faults
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / f".{prefix}.lock"):
            if (faults := _faults(cache, len(files), shape)) is None:
                faults = _build(cache, files, names, shape)
                for old in folder.glob(f"*{prefix}-*"):  # also what a killed builder left unfinished
                    if old.stem != cache.stem:
                        old.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(
            f"the images cannot be kept decoded in {folder} ({error.strerror or error}): "
            f"{np.ceil(len(files) * np.prod(shape) / 1e6):,.0f} MB are needed; set cache_dir to another folder"
        ) from error
    return cache, faults


def _faults(cache: Path, count: int, shape: tuple[int, int, int]) -> dict[str, str] | None:
    """What could not be read when the cache was built; None if there is no complete cache."""
    try:
        if np.load(cache, mmap_mode="r").shape != (count, *shape):
            return None
        return _notes(cache)["faults"]
    except (OSError, ValueError, EOFError):
        return None


def _notes(cache: Path) -> dict[str, Any]:
    """What was found out when the cache was built: "faults", name to fault, and "digests" of all images, in hex."""
    return json.loads(cache.with_suffix(".json").read_text())


def _build(cache: Path, files: Sequence[Path], names: Sequence[str], shape: tuple[int, int, int]) -> dict[str, str]:
    faults: dict[str, str] = {}
    digests = []

    def read(row: int) -> np.ndarray:
        try:
            return read_image(files[row], shape)
        except OSError as error:
            faults[names[row]] = str(error).removeprefix(f"{printable(files[row])}: ")
            return np.zeros(shape, np.uint8)

    unfinished = cache.with_name(f".{cache.name}.unfinished")
    try:
        with unfinished.open("wb") as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(files), *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            blocks = range(0, len(files), BLOCK)
            for start in track(blocks, f"decoding {len(files):,} images, once", transient=True):
                for image in pool.map(read, range(start, min(start + BLOCK, len(files)))):
                    file.write(image.tobytes())
                    digests.append(digest(np.ascontiguousarray(image)).hex())
            file.flush()
            os.fsync(file.fileno())
        cache.with_suffix(".json").write_text(json.dumps({"faults": faults, "digests": "".join(digests)}))
        os.replace(unfinished, cache)
    finally:
        unfinished.unlink(missing_ok=True)
    log.info("decoded %d images into %s", len(files), cache)
    return faults


def _state(file: Path) -> tuple[int, int] | None:
    try:
        state = file.stat()
        return state.st_size, state.st_mtime_ns
    except OSError:  # a broken link: reading it will say so
        return None

"""Damaged files of every format are read, or refused with one of the library's own errors."""

import io
import random
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imgclf.data.digits import Digits
from imgclf.data.image_folder import ImageFolder
from imgclf.data.torchvision_data import TorchvisionImages
from imgclf.imaging.image_files import read_image
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from tests.conftest import PROJECT, tiny_images, write_idx

SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp", "WEBP": ".webp", "GIF": ".gif"}


def originals() -> dict[str, list[bytes]]:
    """Small files of every format, in the format's modes and with its compressions."""
    shapes = []
    for side in (28, 60):
        sheet = Image.new("RGB", (side, side + (side > 28) * 9), (250, 240, 220))
        ImageDraw.Draw(sheet).line([(side // 4, 5), (side // 2, 7), (side // 3, side - 6)], fill=(20, 30, 90), width=5)
        shapes.append(sheet)
    exif = Image.Exif()
    exif[0x0112] = 6

    def saved(image: Image.Image, kind: str, **options) -> bytes:
        file, image = io.BytesIO(), image.copy()  # Pillow remembers what a picture was last saved as
        if options.get("save_all"):
            options["append_images"] = [image.rotate(90)]
        image.save(file, kind, **options)
        return file.getvalue()

    made = {kind: [] for kind in SUFFIX}
    for sheet in shapes:
        grey, deep = sheet.convert("L"), Image.fromarray(np.asarray(sheet.convert("L")).astype(np.uint16) * 257)
        clear = sheet.convert("RGBA")
        clear.putalpha(grey)
        jpegs = (sheet, {}), (sheet, {"progressive": True}), (sheet.convert("CMYK"), {}), (grey, {"exif": exif})
        made["JPEG"] += [saved(image, "JPEG", **options) for image, options in jpegs]
        made["JPEG"].append(saved(sheet, "MPO", save_all=True))
        modes = sheet, grey, clear, deep, grey.convert("LA"), sheet.convert("P"), grey.convert("1")
        made["PNG"] += [saved(image, "PNG", exif=exif) for image in modes]
        made["PNG"] += [saved(sheet.convert("P"), "PNG", transparency=0), saved(sheet, "PNG", save_all=True)]
        made["BMP"] += [saved(image, "BMP") for image in (sheet, grey, clear, sheet.convert("P"), grey.convert("1"))]
        packed = ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg")
        made["TIFF"] += [saved(sheet, "TIFF", compression=name) for name in packed]
        made["TIFF"] += [saved(image, "TIFF") for image in (clear, deep, sheet.convert("CMYK"), sheet.convert("P"))]
        made["TIFF"] += [saved(grey.convert("1"), "TIFF", compression="group4"), saved(sheet, "TIFF", save_all=True)]
        made["WEBP"] += [saved(sheet, "WEBP"), saved(clear, "WEBP", lossless=True), saved(sheet, "WEBP", save_all=True)]
        made["GIF"] += [saved(grey, "GIF"), saved(sheet, "GIF", save_all=True)]
    return made


def mutated(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """The content with some bytes, numbers or stretches changed, mostly near its beginning.

    The checksums of a PNG are mostly corrected, so that its decoder goes on to the damage.
    """
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 30))):
        place = min(int(rng.expovariate(4) * len(data)), max(0, len(data) - 1))
        change = rng.randrange(7)
        if change == 0 and data:
            data[place] ^= 1 << rng.randrange(8)
        elif change == 1 and data:
            data[place] = rng.randrange(256)
        elif change == 2:
            number = rng.choice((0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)))
            width = rng.choice("HI")
            data[place : place + struct.calcsize(width)] = struct.pack(
                rng.choice("<>") + width, number % 2 ** (8 * struct.calcsize(width))
            )
        elif change == 3:
            del data[place : place + rng.randrange(1, 40)]
        elif change == 4:
            data[place:place] = data[place : place + rng.randrange(1, 200)]
        elif change == 5:
            start = rng.randrange(len(other))
            data[place : place + 20] = other[start : start + rng.randrange(1, 60)]
        elif rng.random() < 0.3:
            del data[place:]
    if data[:4] == b"\x89PNG" and rng.random() < 0.7:
        correct_checksums(data)
    return bytes(data)


def correct_checksums(png: bytearray) -> None:
    start = 8  # of a chunk: its length, its kind, its content and its checksum
    while start + 12 <= len(png):
        end = start + 8 + struct.unpack(">I", png[start : start + 4])[0]
        if end + 4 <= len(png):
            png[end : end + 4] = struct.pack(">I", zlib.crc32(png[start + 4 : end]))
        start = end + 4


def fuzz(count: int, folder: Path, seed: int = 0) -> dict[str, Counter]:
    """Reads ``count`` mutated files with ImageFolder, a Predictor and the reader of idx files.

    Any error but the library's own is raised.

    Returns:
        For every format how many files were "read" and "refused", and the longest time of a file, "worst ms".
    """
    rng, found, made = random.Random(seed), {kind: Counter() for kind in (*SUFFIX, "idx")}, originals()
    classifier = Classifier(CNN(channels=[2]), Digits.class_names, [0.2], [0.4])
    predictor, everything = Predictor(classifier, (1, 28, 28)), [content for kind in made.values() for content in kind]
    images, labels = tiny_images(12, 10)
    idx = TorchvisionImages("KMNIST", folder)
    for file, array in zip(idx.files("train"), (images, labels), strict=True):
        write_idx(file, array)
    whole = [file.read_bytes() for file in idx.files("train")]

    def attempt(kind: str, own_errors: tuple[type[Exception], ...], read) -> bool:
        start = time.perf_counter()
        try:
            read()
            return True
        except own_errors:
            return False
        finally:
            found[kind]["worst ms"] = max(found[kind]["worst ms"], round(1000 * (time.perf_counter() - start)))

    for n in range(count):
        kind = (*found,)[n % len(found)]
        if kind == "idx":
            which = rng.randrange(2)
            idx.files("train")[which].write_bytes(mutated(whole[which], rng.choice(everything), rng))
            readable = attempt(kind, (ValueError,), lambda: idx.load("train"))
            idx.files("train")[which].write_bytes(whole[which])
        else:
            file = folder / "set" / "ab"[n % 2] / f"{n:05}{rng.choice((SUFFIX[kind], '.png'))}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(mutated(rng.choice(made[kind]), rng.choice(everything), rng))
            readable = attempt(kind, (OSError,), lambda file=file: read_image(file, (3, 32, 32)))
            assert readable == attempt(kind, (OSError,), lambda file=file: predictor.predict(file))
        found[kind]["read" if readable else "refused"] += 1
    data = ImageFolder(str(folder / "set"), 32, skip_bad=True, cache_dir=str(folder / "cache"), batch_size=1)
    data.prepare_data()
    num_refused = sum(found[kind]["refused"] for kind in SUFFIX)
    assert len(data.faults) == num_refused
    return found


def test_three_hundred_mutated_files_are_read_or_refused(tmp_path):
    found = fuzz(300, tmp_path)
    for kind in (*SUFFIX, "idx"):
        assert found[kind]["refused"] > 3
        assert found[kind]["read"] > 0, kind


@pytest.mark.long
def test_twenty_thousand_mutated_files_take_neither_two_seconds_nor_a_gigabyte(tmp_path):
    code = (
        "import resource, sys, time; from pathlib import Path; from tests.imaging.test_fuzzing import fuzz; "
        "taken = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024; "
        "fuzz(7, Path(sys.argv[1]) / 'first'); libraries = taken(); "
        "start = time.time(); found = fuzz(21_000, Path(sys.argv[1]) / 'all', seed=1); "
        "[print(kind, dict(counts)) for kind, counts in found.items()]; "
        "worst = max(counts['worst ms'] for counts in found.values()); "
        "print(f'worst {worst} ms a file, {taken() - libraries} MB more than the {libraries} MB of the libraries, '"
        "f'{time.time() - start:.0f} s'); "
        "assert worst < 2000 and taken() - libraries < 1000"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=PROJECT, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]

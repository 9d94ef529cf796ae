import io
import os
import random
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from imgclf.core.text import printable
from imgclf.data.digits import Digits
from imgclf.data.image_folder import ImageFolder
from imgclf.data.torchvision_data import TorchvisionImages
from imgclf.imaging.image_files import MAX_BYTES, MAX_PIXELS, find_images, read_image
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from tests.conftest import PROJECT, tiny_images, write_idx


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (24, 16), dtype=np.uint8)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_formats_are_read_as_they_are(suffix, grey, tmp_path):
    file = tmp_path / f"a.{suffix}"
    Image.fromarray(np.stack([grey, grey.T.reshape(grey.shape), 255 - grey], -1)).save(file, lossless=True)
    colour = read_image(file, (3, 24, 16))
    assert colour.dtype == np.uint8
    assert np.array_equal(colour[0], grey)
    assert np.array_equal(colour[2], 255 - grey)


def test_jpeg_and_an_ending_that_lies(tmp_path):
    Image.new("RGB", (50, 40), (200, 100, 50)).save(tmp_path / "a.png", format="jpeg")
    assert np.abs(read_image(tmp_path / "a.png", (3, 8, 8)).astype(int) - [[[200]], [[100]], [[50]]]).max() <= 3


def test_a_large_jpeg_decoded_at_a_smaller_size_looks_the_same(tmp_path):
    y, x = np.mgrid[:1200, :1600] / 200
    image = (127 + 60 * np.sin(x) + 60 * np.cos(y)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "a.jpeg", quality=95)
    Image.fromarray(image).save(tmp_path / "a.png")
    jpeg, png = (read_image(tmp_path / name, (1, 64, 64)).astype(int) for name in ("a.jpeg", "a.png"))
    assert np.abs(jpeg - png).max() <= 4


def test_sixteen_bits_keep_their_shades(tmp_path):
    ramp = np.linspace(0, 65535, 28 * 28).astype(np.uint16).reshape(28, 28)
    for name in ("a.png", "a.tiff"):
        Image.fromarray(ramp).save(tmp_path / name)
        assert np.abs(read_image(tmp_path / name, (1, 28, 28))[0] - ramp / 257).max() <= 1


def test_transparency_is_white_and_exif_turns(grey, tmp_path):
    pixels = np.zeros((24, 16, 4), np.uint8)
    pixels[:12, :, 3] = 255  # the upper half is black, the lower transparent
    Image.fromarray(pixels).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png", (1, 24, 16))[0]
    assert (read[:12] == 0).all()
    assert (read[12:] == 255).all()

    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    Image.fromarray(grey).save(tmp_path / "b.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "b.png", (1, 16, 24))[0], np.rot90(grey, -1))


def test_palette_cmyk_and_black_and_white(tmp_path):
    red = Image.new("RGB", (9, 9), (255, 0, 0))
    red.convert("P").save(tmp_path / "palette.png")
    red.convert("CMYK").save(tmp_path / "cmyk.jpeg", quality=100)
    for name in ("palette.png", "cmyk.jpeg"):
        assert np.abs(read_image(tmp_path / name, (3, 4, 4)).astype(int) - [[[255]], [[0]], [[0]]]).max() <= 4
    Image.new("1", (9, 9), 1).save(tmp_path / "bit.png")
    assert (read_image(tmp_path / "bit.png", (1, 4, 4)) == 255).all()


def bomb(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_what_cannot_be_read_is_named(grey, tmp_path):
    Image.fromarray(grey).save(tmp_path / "whole.jpeg")
    whole = (tmp_path / "whole.jpeg").read_bytes()
    for name, content, fault in (
        ("text.png", b"hello", "no image"),
        ("empty.jpeg", b"", "no image"),
        ("cut.jpeg", whole[: len(whole) // 2], "[Tt]runcated"),
        ("anim.gif", b"GIF89a" + bytes(100), "no image"),  # not among the formats
        ("bomb.png", bomb(10_000), "10000x10000 pixels"),
        ("greater.png", bomb(50_000), "pixels"),
    ):
        (tmp_path / name).write_bytes(content)
        with (
            warnings.catch_warnings(action="ignore"),
            pytest.raises(OSError, match=f"{name}: not a readable image .*{fault}"),
        ):
            read_image(tmp_path / name, (1, 8, 8))
    for name, values in (("float.tiff", np.linspace(0, 1, 64)), ("deep.tiff", np.linspace(0, 2**30, 64))):
        Image.fromarray(values.reshape(8, 8).astype(np.float32 if name == "float.tiff" else np.int32)).save(
            tmp_path / name
        )
        with pytest.raises(OSError, match=f"{name}: not a readable image .*32 bits: save it with 8 or 16"):
            read_image(tmp_path / name, (1, 8, 8))
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")  # opening it would wait for ever
    for name in ("loop.png", "pipe.png", "none.png"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such file"):
            read_image(tmp_path / name, (1, 8, 8))


def test_names_that_are_no_utf_8_are_shown():
    assert printable(os.fsdecode(b"caf\xe9/\xc3\xbc.png")) == "caf\\xe9/ü.png"


def test_find_images(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("in/a.jpg", "b.PNG", "c.txt"):
        (tmp_path / name).touch()
    assert find_images(str(tmp_path)) == [tmp_path / "b.PNG", tmp_path / "in" / "a.jpg"]
    assert find_images(str(tmp_path / "*.PNG")) == [tmp_path / "b.PNG"]
    assert find_images(str(tmp_path / "b.PNG")) == [tmp_path / "b.PNG"]
    for nothing in ("*.gif", "none.png"):
        with pytest.raises(FileNotFoundError, match="no image"):
            find_images(str(tmp_path / nothing))


def test_what_is_too_large_is_refused_before_it_is_read(tmp_path):
    (tmp_path / "long.png").write_bytes(bomb(8))
    os.truncate(tmp_path / "long.png", MAX_BYTES + 1)
    with pytest.raises(OSError, match=r"long\.png: not a readable image \(268,435,457 bytes, more than 268,435,456\)"):
        read_image(tmp_path / "long.png", (1, 8, 8))
    (tmp_path / "wide.png").write_bytes(bomb(8193))
    with pytest.raises(OSError, match=r"8193x8193 pixels, more than 50,000,000: make it smaller"):
        read_image(tmp_path / "wide.png", (1, 8, 8))
    with Image.open(tmp_path / "wide.png") as image, pytest.raises(ValueError, match="8193x8193 pixels"):
        read_image(image, (1, 8, 8))  # in a notebook or on the page
    Image.new("L", (8193, 8193)).save(tmp_path / "wide.jpeg")
    assert read_image(tmp_path / "wide.jpeg", (1, 8, 8)).max() == 0  # decoded at an eighth
    assert MAX_PIXELS <= Image.MAX_IMAGE_PIXELS  # what Pillow would only warn of


# Fuzzing --------------------------------------------------------------------------------------------------------------

SUFFIX = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "BMP": ".bmp", "WEBP": ".webp", "GIF": ".gif"}


def originals() -> dict[str, list[bytes]]:
    """Small files of every format, in the modes and with the compressions that it has."""
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


def mutated(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """The content with bytes, numbers or stretches changed, mostly near its head; the checksums of a PNG set right."""
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5, 30))):
        place = min(int(chance.expovariate(4) * len(data)), max(0, len(data) - 1))
        what = chance.randrange(7)
        if what == 0 and data:
            data[place] ^= 1 << chance.randrange(8)
        elif what == 1 and data:
            data[place] = chance.randrange(256)
        elif what == 2:
            number = chance.choice((0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, chance.randrange(2**32)))
            width = chance.choice("HI")
            data[place : place + struct.calcsize(width)] = struct.pack(
                chance.choice("<>") + width, number % 2 ** (8 * struct.calcsize(width))
            )
        elif what == 3:
            del data[place : place + chance.randrange(1, 40)]
        elif what == 4:
            data[place:place] = data[place : place + chance.randrange(1, 200)]
        elif what == 5:
            start = chance.randrange(len(other))
            data[place : place + 20] = other[start : start + chance.randrange(1, 60)]
        elif chance.random() < 0.3:
            del data[place:]
    if data[:4] == b"\x89PNG" and chance.random() < 0.7:
        at = 8
        while at + 12 <= len(data):
            end = at + 8 + struct.unpack(">I", data[at : at + 4])[0]
            if end + 4 <= len(data):
                data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
            at = end + 4
    return bytes(data)


def fuzz(count: int, folder: Path, seed: int = 0) -> dict[str, Counter]:
    """Has ``count`` mutated files read by image_folder, predict and the reader of idx files; anything but a picture,
    an answer or the project's own complaint is raised.

    Returns:
        Of every format how many files were read and refused, and what took longest, in milliseconds.
    """
    chance, found, made = random.Random(seed), {kind: Counter() for kind in (*SUFFIX, "idx")}, originals()
    classifier = Classifier(CNN(channels=[2]), Digits.class_names, [0.2], [0.4])
    predictor, everything = Predictor(classifier, (1, 28, 28)), [content for kind in made.values() for content in kind]
    images, labels = tiny_images(12, 10)
    idx = TorchvisionImages("KMNIST", folder)
    for file, array in zip(idx.files("train"), (images, labels), strict=True):
        write_idx(file, array)
    whole = [file.read_bytes() for file in idx.files("train")]

    def attempt(kind: str, complaints: tuple[type[Exception], ...], read) -> bool:
        start = time.perf_counter()
        try:
            read()
            return True
        except complaints:
            return False
        finally:
            found[kind]["worst ms"] = max(found[kind]["worst ms"], round(1000 * (time.perf_counter() - start)))

    for n in range(count):
        kind = (*found,)[n % len(found)]
        if kind == "idx":
            which = chance.randrange(2)
            idx.files("train")[which].write_bytes(mutated(whole[which], chance.choice(everything), chance))
            readable = attempt(kind, (ValueError,), lambda: idx.load("train"))
            idx.files("train")[which].write_bytes(whole[which])
        else:
            file = folder / "set" / "ab"[n % 2] / f"{n:05}{chance.choice((SUFFIX[kind], '.png'))}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(mutated(chance.choice(made[kind]), chance.choice(everything), chance))
            readable = attempt(kind, (OSError,), lambda file=file: read_image(file, (3, 32, 32)))
            assert readable == attempt(kind, (OSError,), lambda file=file: predictor.predict(file))
        found[kind]["read" if readable else "refused"] += 1
    data = ImageFolder(str(folder / "set"), 32, skip_bad=True, cache_dir=str(folder / "cache"), batch_size=1)
    data.prepare_data()
    named = sum(found[kind]["refused"] for kind in SUFFIX)
    left_alone = len(list((folder / "set").rglob("*.gif")))  # whose ending is no image's
    assert len(data.faults) == named - left_alone
    return found


def test_three_hundred_mutated_files_are_read_or_refused(tmp_path):
    found = fuzz(300, tmp_path)
    for kind in (*SUFFIX, "idx"):
        assert found[kind]["refused"] > 3
        assert (found[kind]["read"] > 0) == (kind != "GIF"), kind  # which is not among the formats


@pytest.mark.long
def test_twenty_thousand_mutated_files_take_neither_two_seconds_nor_a_gigabyte(tmp_path):
    code = (
        "import resource, sys, time; from pathlib import Path; from tests.imaging.test_image_files import fuzz; "
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

import os
import struct
import warnings
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from imgclf.core.text import printable
from imgclf.imaging.image_files import MAX_BYTES, MAX_PIXELS, find_images, read_image


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


def test_junk_is_passed_over_and_no_file_comes_twice(tmp_path):
    for name in ("a.png", "@eaDir/a.png", "__MACOSX/._a.png", ".thumbnails/a.png", "in/b.png", "in/c.txt", "in/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "link").symlink_to(tmp_path)  # a circle
    wanted = [tmp_path / "a.png", tmp_path / "in" / "b.png"]
    unread = Counter()
    assert find_images(str(tmp_path), unread) == wanted
    assert unread == {".txt": 1, "": 1}
    assert find_images(str(tmp_path / "**" / "*.png")) == wanted
    assert find_images([wanted[1], str(tmp_path), str(tmp_path / "a.*")]) == wanted[::-1]
    assert find_images(str(tmp_path / "@eaDir" / "*.png")) == [tmp_path / "@eaDir" / "a.png"]  # asked for by name


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

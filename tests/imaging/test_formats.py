"""Formats that the extra "formats" reads, and what is told of files that are no images."""

import io

import numpy as np
import pytest
from PIL import Image

from imgclf.imaging import image_files
from imgclf.imaging.image_files import find_images, open_image, read_image


def test_a_photograph_of_a_phone(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    values = np.kron(np.arange(64, dtype=np.uint8).reshape(8, 8) * 3, np.ones((8, 8), np.uint8))
    heif.from_pillow(Image.fromarray(values).convert("RGB")).save(tmp_path / "photo.heic", quality=95)
    assert np.abs(read_image(tmp_path / "photo.heic", (1, 64, 64))[0].astype(int) - values).mean() < 3
    assert find_images(str(tmp_path)) == [tmp_path / "photo.heic"]


def film(tmp_path, values, **tags):
    """A DICOM file of 16 bits a pixel."""
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns = values.shape[-2:]
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset.PixelData = values.astype(np.uint16).tobytes()
    dataset.save_as(tmp_path / "film.dcm", enforce_file_format=True)
    return tmp_path / "film.dcm"


def grey(path):
    return np.asarray(open_image(path, 1)).astype(int)


def test_a_film_is_read_within_its_window(tmp_path):
    ramp = np.arange(0, 4096, 64).reshape(8, 8)
    assert grey(film(tmp_path, ramp))[[0, -1], [0, -1]].tolist() == [0, 255]
    windowed = grey(film(tmp_path, ramp, WindowCenter=1024, WindowWidth=1024))
    expected = np.clip((ramp - 512) / 1023 * 255, 0, 255)
    assert np.abs(windowed - expected).max() <= 1
    hounsfield = film(tmp_path, ramp, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=1024)
    assert np.abs(grey(hounsfield) - expected).max() <= 1
    inverted = film(tmp_path, ramp, WindowCenter=1024, WindowWidth=1024, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(grey(inverted), 255 - windowed)
    assert grey(io.BytesIO(inverted.read_bytes())).tolist() == grey(inverted).tolist()


def test_colours_of_a_palette(tmp_path):
    lookup = {
        f"{colour}PaletteColorLookupTable{suffix}": value
        for colour, shade in (("Red", 200), ("Green", 100), ("Blue", 50))
        for suffix, value in (("Descriptor", [2, 0, 16]), ("Data", np.array([0, shade * 256], np.uint16).tobytes()))
    }
    path = film(tmp_path, np.ones((4, 4)), PhotometricInterpretation="PALETTE COLOR", **lookup)
    assert grey(path)[0, 0].tolist() == [200, 100, 50]


def test_a_film_of_several_frames_or_of_absurd_size_is_refused(tmp_path):
    frames = film(tmp_path, np.zeros((3, 4, 4)), NumberOfFrames=3)
    with pytest.raises(OSError, match=r"film\.dcm: .*3 frames"):
        open_image(frames, 1)
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.dcmread(film(tmp_path, np.zeros((4, 4))))
    dataset.Rows = dataset.Columns = 60_000
    dataset.save_as(tmp_path / "film.dcm")
    with pytest.raises(OSError, match=r"film\.dcm: .*60000x60000"):
        open_image(tmp_path / "film.dcm", 1)


@pytest.mark.parametrize(
    ("start", "package"), [(b"\x00\x00\x00\x18ftypheic", "pillow_heif"), (b"\x00" * 128 + b"DICM", "pydicom")]
)
def test_without_the_extra_the_line_says_how_to_install_it(start, package, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    (tmp_path / "a.jpg").write_bytes(start + bytes(200))
    with pytest.raises(OSError, match=r"a\.jpg: .*pip install -e '\.\[formats\]'"):
        open_image(tmp_path / "a.jpg", 1)
    monkeypatch.setattr(image_files, "SUFFIXES", (".png",))
    (tmp_path / "a.heic").write_bytes(start)
    with pytest.raises(FileNotFoundError, match=r"pip install -e '\.\[formats\]'"):
        find_images(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"%PDF-1.7", "a PDF"),
        (b"\n<!DOCTYPE html>", "HTML or XML"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\x00\x00\x00\x1cftypavif", "AVIF"),
        (b"\x00\x00\x00\x14ftypqt  ", "a video"),
    ],
)
def test_what_a_file_is_instead_is_named(content, kind, tmp_path):
    (tmp_path / "picture.jpg").write_bytes(content + bytes(300))
    with pytest.raises(OSError, match=rf"picture\.jpg: not a readable image \(the content is {kind}\)"):
        open_image(tmp_path / "picture.jpg", 1)

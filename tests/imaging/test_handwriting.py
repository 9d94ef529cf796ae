import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from imgclf.imaging.handwriting import MNIST_SIZE, NO_INK, SEVERAL_DIGITS, read_digit

FONT = ImageFont.load_default(90)
NAVY, CREAM = (25, 25, 90), (240, 235, 225)


def sheet(size=(240, 240), colour=CREAM):
    return Image.new("RGB", size, colour)


def written(text: str, paper=None, ink=NAVY, place=(95, 60)) -> np.ndarray:
    paper = paper or sheet()
    ImageDraw.Draw(paper).text(place, text, fill=ink, font=FONT)
    return np.asarray(paper)


def alike(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of two images, at the best shift of at most a pixel: centring rounds."""
    shifts = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
    return max(float(np.corrcoef(np.roll(first, shift, (0, 1)).ravel(), second.ravel())[0, 1]) for shift in shifts)


def lined(step: int, both: bool, tilt: int = 0) -> Image.Image:
    paper = sheet()
    draw = ImageDraw.Draw(paper)
    for k in range(-step // 2, 260, step):
        draw.line((0, k, 240, k + tilt), fill=(140, 165, 215), width=2)
        if both:
            draw.line((k, 0, k - tilt, 240), fill=(140, 165, 215), width=2)
    return paper


def shade(light) -> np.ndarray:
    """A sheet without ink under a light, a function of y and x in [-0.5, 0.5]."""
    return (light(*np.mgrid[-0.5:0.5:420j, -0.5:0.5:340j]).clip(0, 1) * 255).astype(np.uint8)


def printed_page() -> np.ndarray:
    page = sheet((340, 420))
    for top in range(5, 420, 13):
        ImageDraw.Draw(page).text((8, top), "words of a printed page, line by line " * 2, fill=(40, 40, 40))
    return np.asarray(page)


def test_a_digit_is_centred_by_mass_in_a_box_of_twenty():
    digit = read_digit(written("5", place=(10, 120)))
    assert digit.fault is None
    assert digit.image.dtype == np.uint8
    assert digit.image.max() == 255
    inked = digit.image > 30
    rows, columns = np.nonzero(inked.any(1))[0], np.nonzero(inked.any(0))[0]
    assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 21
    np.testing.assert_allclose(ndimage.center_of_mass(digit.image), [(MNIST_SIZE - 1) / 2] * 2, atol=1)


@pytest.mark.parametrize("text", ["2", "4", "5", "7", "8"])
@pytest.mark.parametrize(
    "photo",
    [
        lambda text: written(text, sheet(colour=(25, 60, 35)), ink=(235, 240, 225)),  # chalk
        lambda text: written(text, ink=(215, 60, 50)),
        lambda text: written(text, lined(40, both=False)),
        lambda text: written(text, lined(40, both=False, tilt=4)),
        lambda text: written(text, lined(30, both=True)),
        lambda text: written(text, sheet((500, 300)), place=(300, 150)),
        lambda text: written(text)[:, :, 0],
        lambda text: written(text).repeat(4, 0).repeat(4, 1),
        lambda text: (written(text) * np.linspace(0.45, 1, 240)[:, None, None]).astype(np.uint8),  # a shadow
        lambda text: (
            (written(text) + np.random.default_rng(0).normal(0, 6, (240, 240, 3))).clip(0, 255).astype("uint8")
        ),
    ],
    ids=["light on dark", "red", "lined", "tilted lines", "squared", "off centre", "grey", "large", "shadow", "grain"],
)
def test_the_same_digit_however_it_is_photographed(photo, text):
    expected, found = read_digit(written(text)), read_digit(photo(text))
    assert found.fault is None
    assert alike(found.image, expected.image) > 0.9


def test_a_printed_frame_and_what_reaches_in_from_the_border_are_left_out():
    framed = sheet()
    ImageDraw.Draw(framed).rectangle((12, 12, 227, 227), outline=(60, 60, 60), width=7)
    desk = sheet()
    ImageDraw.Draw(desk).rectangle((0, 0, 240, 40), fill=(120, 80, 40))
    neighbour = sheet()
    ImageDraw.Draw(neighbour).arc((210, 80, 290, 180), 90, 270, fill=NAVY, width=8)
    expected = read_digit(written("3")).image
    for paper in (framed, desk, neighbour):
        assert alike(read_digit(written("3", paper)).image, expected) > 0.9


def test_a_digit_that_runs_into_its_frame_is_still_read():
    framed = sheet()
    ImageDraw.Draw(framed).rectangle((70, 52, 175, 160), outline=(60, 60, 60), width=6)
    whole = written("3", framed)[40:172, 58:187]  # its right side crosses the frame's
    ImageDraw.Draw(open_frame := sheet()).rectangle((12, 12, 227, 227), outline=(60, 60, 60), width=7)
    reaching = written("7", open_frame, place=(165, 60))
    assert alike(read_digit(reaching).image, read_digit(written("7")).image) > 0.75
    assert read_digit(whole).fault is None


def test_a_stroke_along_a_fainter_line_is_kept():
    def seven(paper: Image.Image) -> np.ndarray:
        ImageDraw.Draw(paper).line([(75, 75), (165, 75), (115, 190)], fill=NAVY, width=4)
        return np.asarray(paper)

    assert alike(read_digit(seven(lined(30, both=True))).image, read_digit(seven(sheet())).image) > 0.9


def test_thin_pens_are_thickened():
    thin = sheet((400, 400))
    ImageDraw.Draw(thin).ellipse((60, 60, 300, 340), outline=NAVY, width=2)
    image = read_digit(np.asarray(thin)).image
    assert (image > 127).sum() > 80  # one-pixel strokes of this size would leave half of it


@pytest.mark.parametrize(
    "photo",
    [
        np.full((200, 200, 3), 255, np.uint8),
        np.zeros((200, 200), np.uint8),
        np.linspace(110, 250, 300)[None].repeat(300, 0).astype(np.uint8),
        (225 + np.random.default_rng(0).normal(0, 6, (300, 300))).clip(0, 255).astype(np.uint8),
        np.asarray(lined(40, both=False)),
        np.asarray(lined(30, both=True)),
        shade(lambda y, x: 1 - 0.4 * np.exp(-(x**2 + y**2) / 0.1)),
        shade(lambda y, x: (0.7 - 0.8 * (x + y)).clip(0.1, 1)),
        shade(lambda y, x: ndimage.gaussian_filter(np.random.default_rng(0).normal(0.7, 0.5, x.shape), 2)),
        printed_page(),
        np.zeros((1, 1, 3), np.uint8),
        np.full((3, 300), 200, np.uint8),
    ],
    ids=[
        "white",
        "black",
        "gradient",
        "grain",
        "lined",
        "squared",
        *("soft shadow", "dark corner", "stains", "print"),
        "1x1",
        "3x300",
    ],
)
def test_without_ink_there_is_no_digit(photo):
    digit = read_digit(photo)
    assert digit.fault == NO_INK
    assert not digit.image.any()


@pytest.mark.parametrize(
    ("whole", "gap"),
    [
        ([[(75, 60), (160, 60)], [(75, 60), (75, 120), (150, 120), (150, 190), (75, 190)]], [(0, 72), (240, 100)]),
        ([[(60, 130), (120, 50), (120, 190)]], [(105, 0), (111, 240)]),
    ],
    ids=["a 5 without the upper half of its back", "a 1 whose flag is apart"],
)
def test_a_broken_digit_is_one(whole, gap):
    def drawn(*holes) -> np.ndarray:
        paper = sheet()
        for line in whole:
            ImageDraw.Draw(paper).line(line, fill=NAVY, width=9)
        for hole in holes:
            ImageDraw.Draw(paper).rectangle(hole, fill=CREAM)
        return np.asarray(paper)

    broken = read_digit(drawn(gap))
    assert broken.fault is None
    assert alike(broken.image, read_digit(drawn()).image) > 0.85


@pytest.mark.parametrize("text", ["42", "1 1", "0 0"])
def test_several_digits_are_not_taken_for_one(text):
    assert read_digit(written(text, sheet((400, 240)))).fault == SEVERAL_DIGITS


@pytest.mark.parametrize("shape", [(2, 2), (1, 40), (5, 3, 3), (28, 28), (900, 7)])
def test_any_shape_has_an_answer(shape):
    random = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert read_digit(random).image.shape == (MNIST_SIZE, MNIST_SIZE)

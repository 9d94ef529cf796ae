import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from imgclf.imaging.pages import find_digits

FONT = ImageFont.load_default(70)
NAVY, CREAM, LINE = (25, 25, 90), (240, 235, 225), (150, 175, 215)


def page(squared: bool) -> Image.Image:
    paper = Image.new("RGB", (600, 400), CREAM)
    if squared:
        draw = ImageDraw.Draw(paper)
        for k in range(15, 600, 35):
            draw.line((k, 0, k, 400), fill=LINE, width=2)
            draw.line((0, k, 600, k + 4), fill=LINE, width=2)
    return paper


@pytest.mark.parametrize("squared", [False, True])
def test_digits_come_in_reading_order_with_their_boxes(squared):
    paper = page(squared)
    places = [(60 + 130 * column + 15 * row, 40 + 160 * row + 6 * column) for row in range(2) for column in range(4)]
    boxes = []
    for text, place in zip("23847956", places, strict=True):
        ImageDraw.Draw(paper).text(place, text, fill=NAVY, font=FONT)
        boxes.append(ImageDraw.Draw(paper).textbbox(place, text, font=FONT))
    found = find_digits(np.asarray(paper))
    assert len(found) == len(boxes)
    for digit, box in zip(found, boxes, strict=True):
        assert digit.image.shape == (28, 28)
        np.testing.assert_allclose(digit.box, box, atol=8)


@pytest.mark.parametrize("squared", [False, True])
def test_a_blank_page_has_no_digits(squared):
    assert find_digits(np.asarray(page(squared))) == []

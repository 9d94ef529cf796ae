"""Which images get a flag and a foot, and where."""

import pytest
import torch

from imgclf.core import rng
from imgclf.transforms.strokes import FlagAndFoot


def stroke(slant: float = 0.0, count: int = 200) -> torch.Tensor:
    """A bare stroke, (count, 1, 28, 28), whose ends lie ``slant`` pixels to the right and left of the middle."""
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    line = ((x - 13.5 + (y - 13.5) / 10 * slant).abs() < 1.5) & ((y - 13.5).abs() < 10)
    return line.float()[None, None].repeat(count, 1, 1, 1)


def test_the_flag_hangs_at_the_upper_left_and_the_foot_lies_below():
    images = stroke()
    changed = FlagAndFoot(p=1.0)(images, rng.generator("test", 0))
    drawn = (changed - images)[:, 0]
    assert torch.equal(drawn.clamp_min(0), drawn)
    assert (drawn[:, :14, :12].sum((1, 2)) > 1).float().mean() > 0.95  # a short and steep flag hides in the stroke
    assert drawn[:, :20, 16:].max() < 0.6  # the round end of the flag, beside the stroke
    foot = drawn[:, 21:, 16:].sum((1, 2)) > 2
    assert 60 < int(foot.sum()) < 110
    assert len({image.numpy().tobytes() for image in changed}) == len(images)


def test_so_many_strokes_get_a_flag_and_the_same_ones_again():
    images = stroke(slant=2.0)
    changed = FlagAndFoot(p=0.3)(images, rng.generator("test", 0))
    assert 40 < int((changed != images).any(3).any(2).sum()) < 80
    assert torch.equal(changed, FlagAndFoot(p=0.3)(images, rng.generator("test", 0)))
    assert torch.equal(images, stroke(slant=2.0))


@pytest.mark.parametrize(
    "images",
    [
        stroke(slant=7.0),
        stroke().transpose(2, 3),
        (stroke() + stroke().transpose(2, 3)).clamp_max(1),
        torch.zeros(50, 1, 28, 28),
        torch.full((50, 3, 20, 24), 0.5),
    ],
    ids=["slanted", "lying", "cross", "empty", "flat"],
)
def test_everything_else_stays_as_it_is(images):
    assert torch.equal(FlagAndFoot(p=1.0)(images, rng.generator("test", 0)), images)

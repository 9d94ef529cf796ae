import math

import numpy as np
import pytest
import torch

from imgclf.core import rng
from imgclf.transforms.backgrounds import LEAST_DEVIATION, Backgrounds, photographs
from imgclf.transforms.paper import draw_paper
from imgclf.transforms.variations import VARIATIONS, Variation


@pytest.fixture(scope="module")
def backgrounds() -> Backgrounds:
    return Backgrounds(photographs("train"))


@pytest.fixture
def digits() -> torch.Tensor:
    """16 strokes with soft edges, float in [0, 1]."""
    images = torch.zeros(16, 1, 28, 28)
    for i in range(16):
        images[i, 0, 6:22, 10 + i % 4 : 14 + i % 4] = 1
        images[i, 0, 6:22, 9 + i % 4] = 0.5
    return images


def draw(name: str, images: torch.Tensor, backgrounds: Backgrounds, seed: int = 1) -> torch.Tensor:
    return Variation(name, backgrounds)(images, rng.generator("test", seed))


def test_the_design_s_twelve_variations():
    assert set(VARIATIONS) == {
        "basic", "rot",
        "back-rand", "back-image", "back-white", "back-lined", "back-squared",
        "rot-back-rand", "rot-back-image", "rot-back-white", "rot-back-lined", "rot-back-squared",
    }  # fmt: skip


@pytest.mark.parametrize("name", VARIATIONS)
def test_shape_dtype_range_and_input_untouched(name, digits, backgrounds):
    before = digits.clone()
    varied = draw(name, digits, backgrounds)
    assert varied.shape == digits.shape
    assert varied.dtype == digits.dtype
    assert varied.min() >= 0
    assert varied.max() <= 1
    assert torch.equal(digits, before)


@pytest.mark.parametrize("name", VARIATIONS)
def test_same_generator_same_batch_other_generator_another(name, digits, backgrounds):
    assert torch.equal(draw(name, digits, backgrounds, 1), draw(name, digits, backgrounds, 1))
    if name != "basic":
        assert not torch.equal(draw(name, digits, backgrounds, 1), draw(name, digits, backgrounds, 2))


@pytest.mark.parametrize("name", VARIATIONS)
def test_each_image_is_drawn_for_itself(name, digits, backgrounds):
    same = digits[:1].repeat(8, 1, 1, 1)
    varied = draw(name, same, backgrounds)
    distinct = {image.numpy().tobytes() for image in varied}
    assert len(distinct) == (1 if name == "basic" else 8)
    # Changing one image leaves what happens to the others alone.
    other = same.clone()
    other[3] = digits[3].flip(-1)
    again = draw(name, other, backgrounds)
    kept = [i for i in range(8) if i != 3]
    assert torch.equal(varied[kept], again[kept])


def test_basic_is_the_identity(digits, backgrounds):
    assert torch.equal(draw("basic", digits, backgrounds), digits)


def test_rotation_by_nothing_is_the_identity(digits, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.zeros(n))
    unturned = Variation("rot")(digits, rng.generator("test", 0))
    torch.testing.assert_close(unturned, digits, atol=1e-5, rtol=0)


def test_rotation_by_a_quarter_turn_matches_torch_rot90(digits, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.full((n,), 0.25))
    turned = Variation("rot")(digits, rng.generator("test", 0))
    torch.testing.assert_close(turned, digits.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_rotation_angles_cover_the_circle():
    bar = torch.zeros(2000, 1, 29, 29)
    bar[:, :, 2:10, 14] = 1  # points up
    turned = Variation("rot")(bar, rng.generator("test", 3))[:, 0]
    grid = torch.arange(29.0) - 14
    y, x = (turned.sum(2) * grid).sum(1), (turned.sum(1) * grid).sum(1)
    quadrants = torch.bincount(((torch.atan2(y, x) + math.pi) / (math.pi / 2)).long().clamp(0, 3), minlength=4)
    assert quadrants.min() > 430  # of 500 expected each


def test_back_rand_is_uniform_over_all_levels_and_keeps_the_ink(backgrounds):
    black = torch.zeros(400, 1, 28, 28)
    levels = (draw("back-rand", black, backgrounds) * 255).round().int().flatten()
    counts = torch.bincount(levels, minlength=256)
    expected = len(levels) / 256
    assert ((counts - expected).abs() < 5 * math.sqrt(expected)).all()
    assert torch.equal(draw("back-rand", torch.ones(4, 1, 28, 28), backgrounds), torch.ones(4, 1, 28, 28))


@pytest.mark.parametrize("name", ["back-rand", "back-image"])
def test_ink_composites_by_its_own_grey_level(name, backgrounds):
    behind = draw(name, torch.zeros(4, 1, 28, 28), backgrounds)
    half = draw(name, torch.full((4, 1, 28, 28), 0.5), backgrounds)
    torch.testing.assert_close(half, 0.5 + 0.5 * behind)


def test_back_image_pastes_varied_patches_of_the_photographs():
    random = np.random.default_rng(0)
    photo = np.full((60, 90), 128, np.uint8)
    photo[10:50, 20:80] = random.integers(0, 256, (40, 60), dtype=np.uint8)
    patches = Backgrounds([photo]).sample(200, rng.generator("test", 0)).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(photo, (28, 28))
    varied = {w.tobytes() for w in windows.reshape(-1, 28, 28) if w.std() >= LEAST_DEVIATION}
    assert all(patch.tobytes() in varied for patch in patches[:, 0])
    assert len({patch.tobytes() for patch in patches}) > 150


def test_varied_patches_are_flipped_turned_inverted_and_halved():
    ramp = np.tile(np.linspace(0, 200, 28).round().astype(np.uint8), (28, 1))
    patches = Backgrounds([ramp], vary=True).sample(400, rng.generator("test", 0)).double()[:, 0]
    across = (patches[:, :, -1] - patches[:, :, 0]).mean(1)  # positive: brighter to the right
    down = (patches[:, -1] - patches[:, 0]).mean(1)
    for change in (across > 10, across < -10, down > 10, down < -10):
        assert 70 < int(change.sum()) < 130  # a quarter each
    photo = np.random.default_rng(0).integers(0, 256, (56, 56), dtype=np.uint8)
    deviations = Backgrounds([photo], vary=True).sample(400, rng.generator("test", 0)).double().std((1, 2, 3))
    assert 150 < int((deviations < 55).sum()) < 250  # the mean of four pixels varies half as much


def test_plain_photographs_are_refused():
    with pytest.raises(ValueError, match="contrast"):
        Backgrounds([np.full((100, 100), 7, np.uint8)])


def test_training_and_evaluation_photographs_are_disjoint():
    train, held_out = photographs("train"), photographs("eval")
    assert len(train) + len(held_out) == 17
    assert len(held_out) >= 4
    names = {photo.tobytes() for photo in train} & {photo.tobytes() for photo in held_out}
    assert not names


@pytest.mark.parametrize("pattern", ["white", "lined", "squared"])
def test_paper_is_light_and_ink_dark(pattern):
    ink = torch.zeros(64, 1, 28, 28)
    ink[:, :, 8:20, 12:16] = 1
    sheet = draw_paper(ink, pattern, rng.generator("test", 0))
    stroke, margin = sheet[:, 0, 12:16, 13:15].mean((1, 2)), sheet[:, 0, :, :6].mean((1, 2))
    assert (margin > 0.35).all()
    assert (stroke < margin).all()


def test_paper_has_the_lines_its_name_says():
    blank = torch.zeros(256, 1, 28, 28)
    roughness = {}
    for pattern in ("white", "lined", "squared"):
        sheet = draw_paper(blank, pattern, rng.generator("test", 0))[:, 0]
        down, across = sheet.diff(dim=1).abs().mean(), sheet.diff(dim=2).abs().mean()
        roughness[pattern] = (float(down), float(across))
    assert roughness["lined"][0] > 1.5 * roughness["white"][0]  # lines are crossed on the way down
    assert roughness["lined"][1] < 1.2 * roughness["white"][1]  # and not on the way across
    assert min(roughness["squared"]) > 1.5 * max(roughness["white"])


def test_unknown_names_are_refused_with_the_list():
    with pytest.raises(ValueError, match=r"back-imag.*rot-back-squared"):
        Variation("back-imag")
    with pytest.raises(ValueError, match="photographs"):
        Variation("back-image")


def test_own_backgrounds(tmp_path):
    from PIL import Image

    with pytest.raises(FileNotFoundError, match="no such folder"):
        photographs("train", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="0 images"):
        photographs("train", str(tmp_path))
    random = np.random.default_rng(0)
    for i in range(4):
        Image.fromarray(random.integers(0, 256, (40, 50), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    assert len(photographs("train", str(tmp_path))) == 3
    assert len(photographs("eval", str(tmp_path))) == 1
    (tmp_path / "4.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"4\.png: not a readable image"):
        photographs("train", str(tmp_path))

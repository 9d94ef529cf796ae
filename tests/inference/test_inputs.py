"""What a user has, as a network's inputs."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN


@pytest.fixture
def of_colours():
    return Predictor(Classifier(CNN((3, 24, 32), 2, channels=[4]), ["a", "b"]), (3, 24, 32), reader="image_file")


def test_images_of_another_size_are_scaled(of_colours, tmp_path):
    Image.new("RGBA", (50, 80), (200, 10, 10, 255)).save(tmp_path / "a.png")
    assert len(of_colours.predict(tmp_path / "a.png")) == 1
    assert len(of_colours.predict(torch.zeros(2, 30, 28))) == 2
    picture = Image.effect_noise((64, 48), 80).convert("RGB")
    picture.save(tmp_path / "noise.png")
    expected = of_colours.preprocess(tmp_path / "noise.png")[0]
    pixels = np.asarray(picture)
    content = (tmp_path / "noise.png").read_bytes()
    for same in (
        *(picture, pixels, pixels.transpose(2, 0, 1), pixels / 255, pixels[None], pixels[:, ::-1][:, ::-1]),
        *(content, io.BytesIO(content), (tmp_path / "noise.png").open()),
    ):
        assert torch.equal(of_colours.preprocess(same)[0], expected)
    for several in ([pixels, pixels[:40]], np.stack([pixels, pixels]), [picture, content]):
        assert of_colours.preprocess(several)[0].shape == (2, 3, 24, 32)
    grey = np.asarray(picture.convert("L"))
    assert of_colours.preprocess(np.stack([grey] * 5))[0].shape == (5, 3, 24, 32)
    assert of_colours.preprocess(grey)[0].shape == (1, 3, 24, 32)
    for shape in ((3, 40, 3), (2, 2, 2, 2, 2), (5,), (7, 30, 40, 50)):
        with pytest.raises(ValueError, match=r"array of shape \(" + str(shape[0])):
            of_colours.predict(np.zeros(shape, np.uint8))


def test_folders_and_patterns_are_predicted(of_colours, tmp_path):
    for i in range(4):
        Image.new("RGB", (9, 9), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
    assert len(of_colours.predict(tmp_path)) == 4
    assert len(of_colours.predict(str(tmp_path / "[01].png"))) == 2
    with pytest.raises(FileNotFoundError, match="no such file"):
        of_colours.predict(tmp_path / "9.png")


def test_a_list_may_hold_images_of_every_kind(of_colours, tmp_path):
    picture = Image.effect_noise((64, 48), 80).convert("RGB")
    picture.save(tmp_path / "a.png")
    kinds = [np.asarray(picture), tmp_path, picture, str(tmp_path / "*.png"), (tmp_path / "a.png").read_bytes()]
    expected = of_colours.preprocess(picture)[0].expand(5, -1, -1, -1)
    for several in (kinds, kinds[::-1], (kind for kind in kinds)):
        assert torch.equal(of_colours.preprocess(several)[0], expected)
    for nothing in (5, None, [5], [[0.5, 0.5]], {1: 2}):
        with pytest.raises(ValueError, match="images="):
            of_colours.predict(nothing)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_arrays_of_16_bits_are_read_as_their_files_are(bits, tmp_path):
    predictor = Predictor(Classifier(CNN((1, 20, 20), 2, channels=[4]), ["a", "b"]), (1, 20, 20), bits=bits)
    pixels = np.linspace(0, 2**bits - 1, 400).astype(np.uint16).reshape(20, 20)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    seen = predictor.preprocess(pixels)[0]
    assert (int(seen.min()), int(seen.max())) == (0, 255)
    assert torch.equal(predictor.preprocess(tmp_path / "a.png")[0], seen)
    assert predictor.preprocess(pixels > 99)[0].unique().tolist() == [0, 255]


def test_pil_images_of_formats_that_are_no_files_of_ours(of_colours, tmp_path):
    picture = Image.effect_noise((64, 48), 80).convert("RGB")
    picture.save(tmp_path / "a.tga")
    with Image.open(tmp_path / "a.tga") as image:
        assert torch.equal(of_colours.preprocess(image)[0], of_colours.preprocess(picture)[0])


def test_a_file_and_its_pil_image_get_the_same_answer(of_colours, tmp_path):
    Image.effect_noise((900, 700), 90).convert("RGB").save(tmp_path / "large.jpg", quality=80)
    from_file = of_colours.preprocess(tmp_path / "large.jpg")[0]
    with Image.open(tmp_path / "large.jpg") as image:
        assert torch.equal(of_colours.preprocess(image)[0], from_file)
    with Image.open(tmp_path / "large.jpg") as image:
        image.load()
        assert torch.equal(of_colours.preprocess(image)[0], from_file)
        image.paste("white", (0, 0, 900, 700))  # what was painted counts, and not the file
        assert of_colours.preprocess(image)[0].unique().tolist() == [255]


def test_a_light_ground_is_inverted_for_a_network_of_light_things(tmp_path):
    clothes = Predictor(Classifier(CNN(channels=[4]), [f"c{i}" for i in range(10)]), (1, 28, 28))
    dark = Image.new("L", (60, 60), 0)
    dark.paste(200, (20, 10, 40, 50))
    light = Image.eval(dark, lambda grey: 255 - grey)
    assert torch.equal(clothes.preprocess(light)[0], clothes.preprocess(dark)[0])
    assert not torch.equal(clothes.preprocess(light, "mnist")[0], clothes.preprocess(dark)[0])

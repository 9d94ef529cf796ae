import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from imgclf.data.digits import Digits
from imgclf.inference.ensemble import ensemble
from imgclf.inference.predictor import Prediction, Predictor
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.transforms.compose import Compose
from imgclf.transforms.intensity import ColorJitter, RandomErasing
from imgclf.transforms.mixing import MixUp
from imgclf.transforms.spatial import RandomAffine, RandomFlip


@pytest.fixture
def predictor():
    return Predictor(Classifier(CNN(channels=[4]), Digits.class_names, [0.2], [0.4]), (1, 28, 28), batch_size=7)


@pytest.fixture
def images():
    noise = torch.randint(0, 256, (20, 1, 26, 26), dtype=torch.uint8)
    return torch.nn.functional.pad(noise, (1, 1, 1, 1))  # a black border, as MNIST's images have it


def test_every_form_of_the_same_images_gets_the_same_answer(predictor, images, tmp_path):
    expected = predictor.predict(images)
    assert len(expected) == 20
    assert predictor.predict(images[:, 0]) == expected
    assert predictor.predict(images.numpy()) == expected
    assert predictor.predict(images[:, 0].numpy()) == expected
    for several in (list(images), list(images[:, 0]), list(images.numpy()), tuple(images[:, 0].numpy())):
        assert predictor.predict(several) == expected
    assert predictor.predict(images[3, 0])[0].predicted == expected[3].predicted
    for i, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{i:02}.png")
    assert predictor.predict(sorted(tmp_path.iterdir())) == expected
    assert predictor.predict(Image.open(tmp_path / "03.png"))[0].predicted == expected[3].predicted
    floats = predictor.predict_proba(images.float() / 255)
    torch.testing.assert_close(floats, predictor.predict_proba(images))
    torch.testing.assert_close(floats, predictor.predict_proba(images.numpy() / 255))  # float64
    torch.testing.assert_close(floats.sum(1), torch.ones(20))
    assert expected[0].class_name == Digits.class_names[expected[0].predicted]
    assert expected[0].probability == pytest.approx(float(floats[0].max()))


def test_an_answer_that_is_not_sure_enough(predictor, images):
    plain = predictor.predict(images)
    limit = sorted(answer.probability for answer in plain)[10]
    careful = predictor.predict(images, unsure_below=limit)
    assert [answer.class_name == "unsure" for answer in careful] == [answer.probability < limit for answer in plain]
    assert {answer.predicted for answer in careful if answer.class_name == "unsure"} == {None}
    with pytest.raises(ValueError, match=r"unsure_below=1\.5"):
        predictor.predict(images, unsure_below=1.5)


def test_it_says_what_it_is(predictor):
    predictor.metadata["metrics"] = {"val/accuracy": 0.987}
    assert repr(predictor) == (
        "Predictor(CNN for 10 classes (0, 1, 2, 3, 4, ...), images of 1x28x28, validation accuracy 0.9870)"
    )


def test_values_out_of_range_are_refused(predictor):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        predictor.predict(torch.full((1, 28, 28), 200.0))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        predictor.predict(torch.full((1, 28, 28), float("nan")))
    with pytest.raises(ValueError, match="uint8"):
        predictor.predict(np.zeros((1, 28, 28), dtype=np.int64))


def test_photographs_are_read_as_such_and_small_images_as_the_network_knows_them(predictor, tmp_path):
    sheet = Image.new("RGB", (200, 200), "white")
    ImageDraw.Draw(sheet).line((60, 40, 120, 40, 80, 160), fill="navy", width=9)
    seen, faults = predictor.preprocess(sheet)
    assert faults == [None]
    assert seen[0, 0, :4].max() == 0  # dark ink on light paper became light ink on black
    raw = predictor.preprocess(sheet, "mnist")[0]
    assert raw[0, 0, 0, 0] == 255
    blank, digit = predictor.predict([Image.new("L", (90, 90), 255), sheet])
    assert blank == Prediction(None, "no ink found", None)
    assert digit.probability == pytest.approx(float(predictor.predict_proba(sheet).max()))
    dark = Predictor(predictor.classifier, (1, 28, 28), polarity="dark_on_light")
    assert torch.equal(dark.preprocess(sheet)[0], 255 - seen)


def test_the_ground_tells_an_image_of_mnist_from_a_small_drawing(predictor):
    own = Image.new("L", (28, 28), 0)
    ImageDraw.Draw(own).line((8, 5, 18, 5, 10, 22), fill=255, width=2)
    dark_on_light = Image.eval(own, lambda grey: 255 - grey)
    pastel = Image.merge(
        "RGB", [Image.eval(dark_on_light, lambda grey, floor=floor: max(grey, floor)) for floor in (150, 190, 120)]
    )
    transparent = Image.new("RGBA", (28, 28), (0, 0, 0, 0))
    transparent.paste("black", mask=own)
    as_it_is = predictor.preprocess(own, "mnist")[0]
    assert torch.equal(predictor.preprocess(own)[0], as_it_is)
    read = predictor.preprocess(dark_on_light)[0]
    assert read[0, 0, 0].max() == 0
    for drawing in (pastel, transparent, dark_on_light.convert("RGB")):
        seen, faults = predictor.preprocess(drawing)
        assert faults == [None]
        assert np.corrcoef(seen.flatten(), read.flatten())[0, 1] > 0.9
    of_paper = Predictor(predictor.classifier, (1, 28, 28), polarity="dark_on_light")
    assert torch.equal(of_paper.preprocess(dark_on_light)[0], 255 - as_it_is)
    assert torch.equal(of_paper.preprocess(own)[0], 255 - predictor.preprocess(own, "photo")[0])
    of_noise = Predictor(predictor.classifier, (1, 28, 28), polarity="any")
    for image in (own, dark_on_light):
        assert torch.equal(of_noise.preprocess(image)[0], of_noise.preprocess(image, "mnist")[0])


@pytest.mark.parametrize("mode", ["CMYK", "P", "LA", "1", "I;16"])
def test_every_mode_of_pictures_can_be_a_photograph(mode, predictor, tmp_path):
    sheet = Image.new("L", (100, 100), 255)
    ImageDraw.Draw(sheet).line((30, 20, 60, 20, 40, 80), fill=0, width=7)
    expected = predictor.preprocess(sheet)[0]
    other = Image.fromarray(np.asarray(sheet).astype(np.uint16) * 257) if mode == "I;16" else sheet.convert(mode)
    other.save(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"))
    found = predictor.preprocess(next(tmp_path.iterdir()))[0]
    assert np.corrcoef(found.flatten(), expected.flatten())[0, 1] > 0.95


def test_what_is_no_photograph_of_a_digit_has_a_clear_answer(predictor, tmp_path):
    (tmp_path / "paper.png").write_bytes(b"%PDF-1.7 and more")
    (tmp_path / "text.png").write_text("not a picture")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    for name, reason in (("paper.png", "the content is a PDF"), ("text.png", "no image"), ("huge.png", "10000x10000")):
        with pytest.raises(OSError, match=reason):
            predictor.predict(tmp_path / name)
    assert predictor.predict(tmp_path / "dot.png") == [Prediction(None, "no ink found", None)]
    two = Image.new("RGB", (300, 200), "white")
    for x in (60, 180):
        ImageDraw.Draw(two).ellipse((x, 50, x + 60, 150), outline="black", width=9)
    assert predictor.predict(two) == [Prediction(None, "several digits", None)]


def test_an_ensemble_averages_probabilities(predictor, images):
    other = Predictor(Classifier(CNN(channels=[3]), Digits.class_names, [0.1], [0.3]), (1, 28, 28))
    both = ensemble([predictor, other])
    mean = (predictor.predict_proba(images) + other.predict_proba(images)) / 2
    torch.testing.assert_close(both.predict_proba(images), mean)
    assert [answer.predicted for answer in both.predict(images)] == mean.argmax(1).tolist()
    assert ensemble([predictor]) is predictor


def test_the_threshold_of_an_ensemble_is_the_mean():
    members = [Predictor(Classifier(CNN(num_classes=1), ["a", "b"], threshold=t), (1, 28, 28)) for t in (0.2, 0.6)]
    assert ensemble(members).threshold == pytest.approx(0.4)


def test_networks_that_answer_different_questions_are_no_ensemble(predictor):
    def other(names=Digits.class_names, shape=(1, 28, 28), **options):
        return Predictor(Classifier(CNN(shape, len(names)), names), shape, **options)

    for member, message in (
        (other([str(i) for i in range(1, 11)]), "class names"),
        (other(shape=(1, 30, 28)), r"image shape \(1, 30, 28\)"),
        (other(polarity="dark_on_light"), "polarity"),
    ):
        with pytest.raises(ValueError, match=f"checkpoint 2 of the ensemble has the {message}"):
            ensemble([predictor, member])


def test_views_are_the_same_for_every_image_and_averaged(predictor, images):
    plain = predictor.predict_proba(images)
    mean = (plain + predictor.predict_proba(images.flip(-1))) / 2
    for count, flip in ((2, 1.0), (2, 0.1), (4, 0.5)):
        predictor.use_tta(count, Compose([RandomFlip(flip)]))
        torch.testing.assert_close(predictor.predict_proba(images), mean)
    changes = [RandomAffine(degrees=20, translate=0.1), ColorJitter(contrast=0.5), RandomErasing(0.5)]
    predictor.use_tta(4, Compose(changes))
    seen = predictor.predict_proba(images)
    assert not torch.allclose(seen, plain)
    torch.testing.assert_close(predictor.predict_proba(images[5:6]), seen[5:6])  # whatever the other images are
    assert predictor.predict([]) == []
    predictor.use_tta(1, Compose())
    assert torch.equal(predictor.predict_proba(images), plain)


def test_views_that_cannot_be_are_refused(predictor):
    for count in (0, 2.5, None):
        with pytest.raises(ValueError, match=f"tta={count}"):
            predictor.use_tta(count, Compose([RandomFlip(1.0)]))
    for nothing in (Compose(), Compose([RandomErasing(1e-9)])):
        with pytest.raises(ValueError, match=r"tta=3: .*augmentation"):
            predictor.use_tta(3, nothing)
    with pytest.raises(ValueError, match="as in tta=8"):
        predictor.use_tta(1, Compose([RandomAffine(translate=0.1)]))
    with pytest.raises(ValueError, match="mixup and cutmix"):
        predictor.use_tta(3, Compose([RandomAffine(translate=0.1), MixUp(0.5)]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reader": "os.system"}, "reader=os.system"),
        ({"polarity": 1}, "polarity=1"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_arguments_that_cannot_be_are_refused(options, message, predictor):
    with pytest.raises(ValueError, match=message):
        Predictor(predictor.classifier, (1, 28, 28), **options)
    with pytest.raises(ValueError, match=r"images_as=scan.*photo"):
        predictor.predict(torch.zeros(1, 28, 28), "scan")


def test_a_network_trained_on_files_scales_them(predictor):
    sheet = Image.new("RGB", (200, 200), "white")
    files = Predictor(predictor.classifier, (1, 28, 28), reader="image_file")
    assert torch.equal(files.preprocess(sheet)[0], predictor.preprocess(sheet, "mnist")[0])
    assert files.preprocess(sheet, "photo")[1] == ["no ink found"]
    named = Classifier(CNN(channels=[4]), [f"digit {i}" for i in range(10)])
    assert Predictor(named, (1, 28, 28), reader="handwriting").preprocess(sheet)[1] == ["no ink found"]
    assert Predictor(named, (1, 28, 28)).preprocess(sheet)[1] == [None]


def test_features_are_what_the_head_turns_into_logits():
    predictor = Predictor(Classifier(CNN(channels=[4]), Digits.class_names), (1, 28, 28))
    images = torch.randint(0, 256, (7, 1, 28, 28), dtype=torch.uint8)
    (head,) = predictor.classifier.network.get_head()
    torch.testing.assert_close(head(predictor.features(images)).detach(), predictor.logits(images))

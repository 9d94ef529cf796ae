import csv
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from PIL import Image

from imgclf.demo import build_page
from imgclf.evaluation.explain import explain_image, predict_uploads
from imgclf.inference.predictor import Predictor
from imgclf.models.cnn import CNN
from imgclf.models.mlp import MLP
from tests.commands.demo_page import SEVEN, data_url, drawn, predictor_of
from tests.imaging.test_formats import film

pytest.importorskip("gradio", reason="the page needs pip install -e '.[demo]'")


@pytest.fixture
def predictor() -> Predictor:
    return predictor_of(CNN(channels=[4]))


@pytest.mark.parametrize("kind", ["drawing", "seven.jpg", "seven.heic"])
def test_the_answer_is_that_of_predict(kind, predictor, tmp_path):
    source = drawn(SEVEN)
    if kind != "drawing":
        source = str(tmp_path / kind)
        if kind.endswith("heic"):
            pytest.importorskip("pillow_heif").from_pillow(drawn(SEVEN)).save(source)
        else:
            drawn(SEVEN).convert("CMYK").save(source)
    shown = explain_image(predictor, source)
    (expected,) = predictor.predict(source)
    assert shown.answer == f"{expected.class_name}, {expected.probability:.0%}"
    assert list(shown.probabilities) == predictor.class_names
    assert sum(shown.probabilities.values()) == pytest.approx(1)
    assert max(shown.probabilities, key=shown.probabilities.get) == expected.class_name
    canvas = predictor.preprocess(source)[0][0, 0].numpy()
    assert canvas.any()
    np.testing.assert_array_equal(shown.input, canvas.repeat(10, 0).repeat(10, 1)[..., None].repeat(3, 2))
    assert shown.evidence.shape == shown.input.shape
    assert (shown.evidence != shown.input).any()
    assert (shown.original is None) == (kind == "drawing")
    assert explain_image(predictor, source, unsure_below=1.0).answer == f"unsure, {expected.probability:.0%}"


@pytest.mark.parametrize(
    ("strokes", "answer"),
    [([], "no ink found"), ([[(70, 60), (70, 240)], [(220, 60), (220, 240)]], "several digits")],
)
def test_no_single_digit(strokes, answer, predictor):
    assert explain_image(predictor, drawn(*strokes)) == (answer, None, None, None, None)


def test_nothing_yet(predictor):
    assert explain_image(predictor, None) == ("", None, None, None, None)
    assert explain_image(predictor, drawn(SEVEN), unsure_below=1).answer.startswith("unsure, ")


def test_a_file_that_is_no_image_gets_one_line(predictor, tmp_path):
    text, half = tmp_path / "text.png", tmp_path / "half.png"
    text.write_text("hello\n")
    drawn(SEVEN).save(half)
    half.write_bytes(half.read_bytes()[:200])
    assert explain_image(predictor, str(text)) == ("text.png: not a readable image (no image)", None, None, None, None)
    shown = explain_image(predictor, str(half))
    assert re.fullmatch(r"half\.png: not a readable image \(.+\)", shown.answer)
    assert shown[1:] == (None, None, None, None)


def test_two_classes_show_their_threshold(tmp_path):
    predictor = predictor_of(CNN((1, 300, 40), 1, channels=[4]), ["NORMAL", "PNEUMONIA"], threshold=0.001)
    file = str(tmp_path / "xray.png")
    Image.fromarray(torch.randint(0, 2**16, (600, 400)).numpy().astype(np.uint16)).save(file)
    shown = explain_image(predictor, file)
    assert re.fullmatch(r"PNEUMONIA, \d+% \(the threshold of PNEUMONIA is 0\.1%\)", shown.answer)
    assert shown.input.shape == shown.evidence.shape == (300, 40, 3)  # as large as it is
    assert max(shown.original.size) == 400


def test_a_dicom_film(tmp_path):
    predictor = predictor_of(CNN((1, 40, 40), 1, channels=[4]), ["NORMAL", "PNEUMONIA"])
    file = film(tmp_path, torch.randint(0, 4096, (50, 60)).numpy().astype(np.uint16))
    shown = explain_image(predictor, str(file))
    (expected,) = predictor.predict(file)
    assert shown.answer.startswith(f"{expected.class_name}, ")
    assert shown.original.size == (60, 50)


def test_a_network_without_a_place_for_evidence():
    predictor = predictor_of(MLP(hidden=[4]))
    assert explain_image(predictor, drawn(SEVEN)).evidence is None
    assert "No evidence is shown" in str(build_page(predictor).config)


def test_only_networks_of_digits_get_a_sketch_pad(predictor):
    pads = [
        [component["props"].get("elem_id") for component in build_page(p).config["components"]].count("pad")
        for p in (predictor, predictor_of(CNN((3, 40, 40), 3, channels=[4]), list("abc")))
    ]
    assert pads == [1, 0]


def test_the_pages_functions(predictor, tmp_path):
    functions = {function.api_name: function.fn for function in build_page(predictor).fns.values()}
    assert set(functions) == {"draw", "photograph", "upload"}
    drawn(SEVEN).save(tmp_path / "seven.png")
    answer = explain_image(predictor, drawn(SEVEN)).answer
    assert functions["draw"](data_url(drawn(SEVEN)))[0] == answer
    assert functions["draw"](data_url(Image.new("RGBA", (300, 300))))[0] == "no ink found"  # transparent is white
    assert functions["draw"](None)[0] == ""
    alone = functions["upload"]([str(tmp_path / "seven.png")])
    assert alone[0] == answer
    assert not alone[5].visible  # the table is for several
    (tmp_path / "text.png").write_text("hello\n")
    files = [str(tmp_path / name) for name in ("seven.png", "text.png")]
    several = functions["upload"](files)
    assert several[0] == answer
    columns, rows = predict_uploads(predictor, files)
    with open(several[6].value["path"]) as file:
        assert [*csv.reader(file)] == [columns, *([str(cell or "") for cell in row] for row in rows)]
    (expected,) = predictor.predict(drawn(SEVEN))
    assert rows[0][:6] == ["seven.png", None, None, expected.predicted, expected.class_name, rows[0][5]]
    assert float(rows[0][5]) == pytest.approx(expected.probability, abs=1e-6)
    assert rows[1][3:6] == [None, "text.png: not a readable image (no image)", None]
    assert functions["photograph"](data_url(drawn(SEVEN)))[0] == answer
    assert functions["photograph"](data_url(drawn(SEVEN)))[4].size == (300, 300)


@pytest.mark.parametrize("target", ["os.system", "pathlib.Path"])
def test_a_thread_of_the_server_cannot_instantiate(target, predictor, monkeypatch, tmp_path):
    upload = next(function.fn for function in build_page(predictor).fns.values() if function.api_name == "upload")
    config = {"_target_": target, "_args_": [f"touch {tmp_path}/executed"]}
    monkeypatch.setattr("imgclf.evaluation.explain.explain_image", lambda *arguments: instantiate(config))
    with ThreadPoolExecutor(1) as server, pytest.raises(InstantiationException, match="whitelist"):
        server.submit(upload, []).result()
    assert not (tmp_path / "executed").exists()

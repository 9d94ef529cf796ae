import base64
import io
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from PIL import Image, ImageDraw

from imgclf.checkpoints.metadata import build_metadata
from imgclf.data.digits import Digits
from imgclf.demo import look, page
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.models.mlp import MLP
from tests.conftest import PROJECT

gradio = pytest.importorskip("gradio", reason="the page needs pip install -e '.[demo]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def predictor_of(network, names=Digits.class_names, **options) -> Predictor:
    return Predictor(Classifier(network, list(names), **options), tuple(network.init_args["image_shape"]))


def drawn(*strokes, mode="RGB") -> Image.Image:
    image = Image.new(mode, (300, 300), "white")
    for stroke in strokes:
        ImageDraw.Draw(image).line(stroke, fill="black", width=20)
    return image


SEVEN = [(90, 60), (200, 60), (130, 240)]


@pytest.fixture
def predictor() -> Predictor:
    return predictor_of(CNN(channels=[4]))


@pytest.mark.parametrize("kind", ["drawing", "seven.jpg"])
def test_the_answer_is_that_of_predict(kind, predictor, tmp_path):
    source = drawn(SEVEN)
    if kind != "drawing":
        source = str(tmp_path / kind)
        drawn(SEVEN).convert("CMYK" if kind.endswith("jpg") else "L").save(source)
    shown = look(predictor, source)
    (expected,) = predictor.predict(source)
    assert shown.answer == f"{expected.class_name}, {expected.probability:.0%}"
    assert list(shown.probabilities) == predictor.class_names
    assert sum(shown.probabilities.values()) == pytest.approx(1)
    assert max(shown.probabilities, key=shown.probabilities.get) == expected.class_name
    canvas = predictor.tensor(source)[0, 0].numpy()
    assert canvas.any()
    np.testing.assert_array_equal(shown.seen, canvas.repeat(10, 0).repeat(10, 1)[..., None].repeat(3, 2))
    assert shown.evidence.shape == shown.seen.shape
    assert (shown.evidence != shown.seen).any()
    assert (shown.given is None) == (kind == "drawing")


@pytest.mark.parametrize(
    ("strokes", "answer"),
    [([], "no ink found"), ([[(70, 60), (70, 240)], [(220, 60), (220, 240)]], "several digits")],
)
def test_no_single_digit(strokes, answer, predictor):
    assert look(predictor, drawn(*strokes)) == (answer, None, None, None, None)


def test_nothing_yet(predictor):
    assert look(predictor, None) == ("", None, None, None, None)


def test_a_file_that_is_no_image_gets_one_line(predictor, tmp_path):
    text, half = tmp_path / "text.png", tmp_path / "half.png"
    text.write_text("hello\n")
    drawn(SEVEN).save(half)
    half.write_bytes(half.read_bytes()[:200])
    assert look(predictor, str(text)) == ("text.png: not a readable image (no image)", None, None, None, None)
    shown = look(predictor, str(half))
    assert re.fullmatch(r"half\.png: not a readable image \(.+\)", shown.answer)
    assert shown[1:] == (None, None, None, None)


def test_two_classes_show_their_threshold(tmp_path):
    predictor = predictor_of(CNN((1, 300, 40), 1, channels=[4]), ["NORMAL", "PNEUMONIA"], threshold=0.001)
    file = str(tmp_path / "xray.png")
    Image.fromarray(torch.randint(0, 2**16, (600, 400)).numpy().astype(np.uint16)).save(file)
    shown = look(predictor, file)
    assert re.fullmatch(r"PNEUMONIA, \d+% \(the threshold of PNEUMONIA is 0\.1%\)", shown.answer)
    assert shown.seen.shape == shown.evidence.shape == (300, 40, 3)  # as large as it is
    assert max(shown.given.size) == 400


def test_a_network_without_a_place_for_evidence():
    predictor = predictor_of(MLP(hidden=[4]))
    assert look(predictor, drawn(SEVEN)).evidence is None
    assert "No evidence is shown" in str(page(predictor).config)


def test_only_networks_of_digits_get_a_sketch_pad(predictor):
    pads = [
        [component["type"] for component in page(p).config["components"]].count("html")
        for p in (predictor, predictor_of(CNN((3, 40, 40), 3, channels=[4]), "abc"))
    ]
    assert pads == [1, 0]


def data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def test_the_pages_functions(predictor, tmp_path):
    functions = {function.api_name: function.fn for function in page(predictor).fns.values()}
    assert set(functions) == {"draw", "upload"}
    drawn(SEVEN).save(tmp_path / "seven.png")
    answer = look(predictor, drawn(SEVEN)).answer
    assert functions["draw"](data_url(drawn(SEVEN)))[0] == answer
    assert functions["draw"](data_url(Image.new("RGBA", (300, 300))))[0] == "no ink found"  # transparent is white
    assert functions["draw"](None)[0] == ""
    assert functions["upload"](str(tmp_path / "seven.png"))[0] == answer


@pytest.mark.parametrize("target", ["os.system", "pathlib.Path"])
def test_a_thread_of_the_server_cannot_instantiate(target, predictor, monkeypatch, tmp_path):
    upload = next(function.fn for function in page(predictor).fns.values() if function.api_name == "upload")
    config = {"_target_": target, "_args_": [f"touch {tmp_path}/executed"]}
    monkeypatch.setattr("imgclf.demo.look", lambda predictor, source: instantiate(config))
    with ThreadPoolExecutor(1) as server, pytest.raises(InstantiationException, match="whitelist"):
        server.submit(upload, None).result()
    assert not (tmp_path / "executed").exists()


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    file = tmp_path_factory.mktemp("ckpt") / "best.ckpt"
    classifier = predictor_of(CNN(channels=[4])).classifier
    torch.save({"state_dict": classifier.state_dict(), "imgclf": build_metadata(classifier)}, file)
    return file


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


def test_refusals(script, ckpt, monkeypatch):
    demo = "imgclf/demo.py"
    assert "ckpt is missing" in script(demo).error
    assert "unknown option prot" in script(demo, f"ckpt={ckpt}", "prot=1").error
    assert "port=70000: give a whole number" in script(demo, f"ckpt={ckpt}", "port=70000").error
    assert "ckpt=nowhere.ckpt: no such file" in script(demo, "ckpt=nowhere.ckpt", f"port={free_port()}").error
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port={port}: Address already in use" in script(demo, f"ckpt={ckpt}", f"port={port}").error
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install -e '.[demo]'" in script(demo, f"ckpt={ckpt}").error


def test_help(script):
    done = script("imgclf/demo.py", "--help")
    assert done.code == 0
    assert "python -m imgclf.demo ckpt=PATH [port=7860]" in done.out


@contextmanager
def serving(ckpt, folder):
    """The page's address; SIGTERM ends it."""
    port = free_port()
    words = [sys.executable, "-m", "imgclf.demo", f"ckpt={ckpt}", f"port={port}"]
    # A proxy that is not there, as in an office: nothing may go through it.
    environment = {**os.environ, "TMPDIR": str(folder), "http_proxy": "http://127.0.0.1:9"}
    process = subprocess.Popen(words, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def test_the_server(ckpt, tmp_path, monkeypatch):
    import httpx
    from gradio_client import Client, handle_file

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    files, temporary = tmp_path / "files", tmp_path / "temporary"
    files.mkdir()
    temporary.mkdir()
    drawn(SEVEN).save(files / "seven.png")
    (files / "text.png").write_text("hello\n")
    (files / "big.png").write_bytes(bytes(21 * 2**20))
    with serving(ckpt, temporary) as url:
        html = urllib.request.urlopen(url).read().decode() + urllib.request.urlopen(f"{url}/theme.css").read().decode()
        for elsewhere in ("fonts.g", "cdn", "googletagmanager", "@import", "url(http", 'src="http'):
            assert elsewhere not in html
        assert not re.search(r'<link[^>]+href="https?:', html)
        client = Client(url, verbose=False, download_files=False)
        answer, bars, *_ = client.predict(data_url(drawn(SEVEN)), api_name="/draw")
        assert re.fullmatch(r"\d, \d+%", answer)
        assert len(bars["confidences"]) == 10
        assert client.predict(handle_file(files / "seven.png"), api_name="/upload")[0] == answer
        assert (
            "text.png: not a readable image" in client.predict(handle_file(files / "text.png"), api_name="/upload")[0]
        )
        with (files / "big.png").open("rb") as big:
            assert httpx.post(f"{url}/gradio_api/upload", files={"files": big}).status_code == 413
        assert client.predict(data_url(drawn(SEVEN)), api_name="/draw")[0] == answer  # and goes on
        client.close()
        assert any(temporary.iterdir())
    assert not any(temporary.iterdir())


class Browser:
    """Headless Chromium by its debugging protocol, through a pipe."""

    def __init__(self, profile) -> None:
        (here, its_out), (its_in, out) = os.pipe(), os.pipe()
        # Descriptors 3 and 4 are where it reads and writes.
        shell = f'exec "$0" "$@" 3<&{its_in} 4>&{its_out}'
        flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
        words = [CHROMIUM, *flags.split(), "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            ["bash", "-c", shell, *words], pass_fds=(its_in, its_out), stderr=subprocess.DEVNULL
        )
        os.close(its_in)
        os.close(its_out)
        self.input, self.out = os.fdopen(here, "rb"), os.fdopen(out, "wb")
        self.numbers, self.session, self.requests = itertools.count(1), None, []
        # Ends a reading that would never end.
        self.watch = threading.Timer(150, self.process.kill)
        self.watch.start()
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self("Network.enable")

    def __call__(self, method: str, **parameters):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        self.out.write(json.dumps(message).encode() + b"\0")
        self.out.flush()
        while True:
            answer = json.loads(self._message())
            if answer.get("method") == "Network.requestWillBeSent":
                self.requests.append(answer["params"]["request"]["url"])
            if answer.get("id") == number:
                return answer["result"]

    def _message(self) -> bytes:
        return b"".join(iter(lambda: self.input.read(1) or pytest.fail("Chromium has gone"), b"\0"))

    def value(self, script: str):
        return self("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait(self, script: str, seconds: float = 45):
        """The value of ``script`` once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.value(script)):
            assert time.monotonic() < end, f"{script}: {value!r}"
            time.sleep(0.1)
        return value

    def drag(self, points) -> None:
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1)]
        button = {"button": "left", "clickCount": 1}
        for kind, (x, y) in zip(kinds, points, strict=True):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, buttons=1, **button)
        self("Input.dispatchMouseEvent", type="mouseReleased", x=points[-1][0], y=points[-1][1], **button)

    def close(self) -> None:
        self.watch.cancel()
        self.process.terminate()
        self.process.wait(30)
        self.input.close()
        self.out.close()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
def test_in_a_browser(ckpt, tmp_path):
    drawn(SEVEN).save(tmp_path / "seven.png")
    (tmp_path / "text.png").write_text("hello\n")
    answer = 'document.querySelector("#answer textarea")?.value'
    with serving(ckpt, tmp_path) as url:
        browser = Browser(tmp_path / "profile")
        try:
            browser("Page.navigate", url=url)
            box = browser.wait('JSON.stringify(document.querySelector("#pad canvas")?.getBoundingClientRect())')
            box = SimpleNamespace(**json.loads(box))
            # gradio covers the page until all of it is there.
            browser.wait(f'document.elementFromPoint({box.x + 50}, {box.y + 50})?.tagName === "CANVAS"')
            browser.drag([(box.x + x * box.width / 300, box.y + y * box.height / 300) for x, y in SEVEN])
            assert re.fullmatch(r"\d, \d+%", browser.wait(answer))
            for picture in ("seen", "evidence"):
                assert browser.wait(f'document.querySelector("#{picture} img")?.naturalWidth') == 280
            assert browser.wait('document.querySelector("#bars").innerText').count("%") == 10
            browser.value('document.querySelector("#pad button").click()')
            browser.wait(f'{answer} === ""')
            for name, expected in (("seven.png", r"\d, \d+%"), ("text.png", r"text\.png: not a readable image.*")):
                browser.value("[...document.querySelectorAll('[role=tab]')].at(-1).click()")
                browser.wait("document.querySelector('#file input[type=file]') !== null")
                node = browser("Runtime.evaluate", expression="document.querySelector('#file input[type=file]')")
                browser("DOM.setFileInputFiles", files=[str(tmp_path / name)], objectId=node["result"]["objectId"])
                assert re.fullmatch(expected, browser.wait(answer))
                browser.value("document.querySelector('#file [aria-label=Clear]').click()")
                browser.wait(f'{answer} === ""')
            elsewhere = [to for to in browser.requests if not to.startswith((url, "data:", "blob:", "about:"))]
            assert elsewhere == []
        finally:
            browser.close()

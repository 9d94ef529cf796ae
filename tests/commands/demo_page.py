"""What the tests of the demo share: drawings, the served page, and a browser that looks at it."""

import base64
import io
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from PIL import Image, ImageDraw

from imgclf.data.digits import Digits
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from tests.conftest import PROJECT

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def predictor_of(network, names=Digits.class_names, **options) -> Predictor:
    return Predictor(Classifier(network, names, **options), tuple(network.init_args["image_shape"]))


def drawn(*strokes, mode="RGB") -> Image.Image:
    image = Image.new(mode, (300, 300), "white")
    for stroke in strokes:
        ImageDraw.Draw(image).line(stroke, fill="black", width=20)
    return image


SEVEN = [(90, 60), (200, 60), (130, 240)]


def data_url(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return door.getsockname()[1]


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

import json
import re
import socket
import urllib.request
from types import SimpleNamespace

import pytest
import torch

from imgclf.checkpoints.metadata import build_metadata
from imgclf.models.cnn import CNN
from tests.commands.demo_page import CHROMIUM, SEVEN, Browser, data_url, drawn, free_port, predictor_of, serving

pytest.importorskip("gradio", reason="the page needs pip install -e '.[demo]'")


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    file = tmp_path_factory.mktemp("ckpt") / "best.ckpt"
    classifier = predictor_of(CNN(channels=[4])).classifier
    torch.save({"state_dict": classifier.state_dict(), "imgclf": build_metadata(classifier)}, file)
    return file


def test_refusals(script, ckpt, monkeypatch):
    demo = "imgclf/demo.py"
    assert "ckpt is missing" in script(demo).error
    assert "unknown argument prot=1" in script(demo, f"ckpt={ckpt}", "prot=1").error
    assert "unsure_below=2: give" in script(demo, f"ckpt={ckpt}", "unsure_below=2").error
    assert "port=70000: give a whole number" in script(demo, f"ckpt={ckpt}", "port=70000").error
    assert "nowhere.ckpt: no such file" in script(demo, "ckpt=nowhere.ckpt", f"port={free_port()}").error
    assert "host=192.0.2.1: this machine has no such" in script(demo, f"ckpt={ckpt}", "host=192.0.2.1").error
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port={port}: Address already in use" in script(demo, f"ckpt={ckpt}", f"port={port}").error
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install -e '.[demo]'" in script(demo, f"ckpt={ckpt}").error


def test_help(script):
    done = script("imgclf/demo.py", "--help").ok()
    assert "python -m imgclf.demo ckpt=RUN" in done.out


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
        assert client.predict([handle_file(files / "seven.png")], api_name="/upload")[0] == answer
        assert (
            "text.png: not a readable image" in client.predict([handle_file(files / "text.png")], api_name="/upload")[0]
        )
        with (files / "big.png").open("rb") as big:
            assert httpx.post(f"{url}/gradio_api/upload", files={"files": big}).status_code == 413
        assert client.predict(data_url(drawn(SEVEN)), api_name="/draw")[0] == answer  # and goes on
        client.close()
        assert any(temporary.iterdir())
    assert not any(temporary.iterdir())


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

"""A page to try a trained network on: python -m imgclf.demo ckpt=PATH [port=7860]

Draw a digit, or drop a photograph, scan or X-ray: the page shows what the network saw, what it answers, and where its
evidence is. It is served to this machine only, loads nothing from the internet, and deletes what it was given when it
ends. It needs gradio: pip install -e '.[demo]'
"""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import signal
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from imgclf import cli

if TYPE_CHECKING:
    import gradio
    from torch import Tensor

    from imgclf.inference.predictor import Predictor

ADDRESS = "127.0.0.1"
UPLOAD = "20 MB"  # at most
KEPT = 3600  # seconds that a page which goes on keeps an upload
CANVAS, PEN = 400, 24  # pixels of the sketch pad's sides and of its pen
SIDE = 280  # pixels that small images are enlarged to
SHOWN = 10  # of the classes, the most probable

# gradio's own sketch pad wants its pen picked up first, and a browser with WebGL.
PAD = {
    "html_template": "<button>Clear</button>",
    "css_template": """
        canvas { display: block; margin-bottom: 1rem; border: 1px solid #888; max-width: 100%; touch-action: none }
        button { padding: 0.3rem 1rem; border: 1px solid #888; border-radius: 4px }""",
    "js_on_load": f"""
        const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
        const clear = () => {{ pen.fillStyle = "white"; pen.fillRect(0, 0, {CANVAS}, {CANVAS}); }};
        const tell = (drawing) => {{ props.value = drawing; trigger("input"); }};
        const go = (event) => {{
            const box = canvas.getBoundingClientRect(), scale = {CANVAS} / box.width;
            pen.lineTo((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
            pen.stroke();
        }};
        canvas.width = canvas.height = {CANVAS};
        clear();
        Object.assign(pen, {{ lineWidth: {PEN}, lineCap: "round", lineJoin: "round" }});
        let down = false;
        canvas.onpointerdown = (event) => {{
            down = true;
            pen.beginPath();
            go(event);
            go(event);
            canvas.setPointerCapture(event.pointerId);
        }};
        canvas.onpointermove = (event) => down && go(event);
        canvas.onpointerup = canvas.onpointercancel = () => {{ down = false; tell(canvas.toDataURL()); }};
        element.querySelector("button").onclick = () => {{ clear(); tell(null); }};
        element.prepend(canvas);""",
}


class Look(NamedTuple):
    """What the page shows of an image.

    Attributes:
        answer: one line: the class and its probability, or why there is none.
        probabilities: class name to probability; None, as all that follows, if there is no answer.
        seen: what the network was given, uint8 (H, W, 3), a small image enlarged pixel by pixel.
        evidence: Grad-CAM over it: of two classes for the second, else for the answer; None if the network has no layer
            with a height and a width.
        given: the image itself, if it came as a file, at most ``CANVAS`` pixels a side.
    """

    answer: str
    probabilities: dict[str, float] | None = None
    seen: np.ndarray | None = None
    evidence: np.ndarray | None = None
    given: Image.Image | None = None


def look(predictor: Predictor, source: str | Image.Image | None) -> Look:
    """What ``predictor`` makes of an image file or a PIL image, seen as ``predict`` sees it; of None, nothing."""
    import torch

    from imgclf.core.text import printable
    from imgclf.evaluation.grad_cam import grad_cam
    from imgclf.figures.classification import overlay_heat_map
    from imgclf.imaging.image_files import open_image

    if source is None:
        return Look("")
    given = None
    try:
        images, (fault,) = predictor.preprocess(source)
        if not isinstance(source, Image.Image):
            given = open_image(source, CANVAS).convert("RGB")
            given.thumbnail((CANVAS, CANVAS))
    except (OSError, ValueError) as error:
        told = str(error)
        if isinstance(source, str):  # the temporary folder is nothing to the user
            told = told.replace(printable(source), printable(Path(source).name))
        return Look(told)
    if fault:
        return Look(fault, given=given)
    probabilities, names = predictor.logits(images).softmax(1), predictor.class_names
    (answer,) = predictor.to_predictions(probabilities)
    text = f"{answer.class_name}, {answer.probability:.0%}"
    if len(names) == 2:
        text += f" (the threshold of {names[1]} is {predictor.threshold:.1%})"
    heat = grad_cam(predictor, images, torch.tensor([1 if len(names) == 2 else answer.predicted]))
    seen = overlay_heat_map(images, torch.zeros(1, *images.shape[2:]))[0]
    evidence = None if heat is None else _enlarged(overlay_heat_map(images, heat)[0])
    return Look(text, dict(zip(names, probabilities[0].tolist(), strict=True)), _enlarged(seen), evidence, given)


def _enlarged(picture: Tensor) -> np.ndarray:
    """Float (3, H, W) in [0, 1] as uint8 (H, W, 3), its pixels repeated while that stays within ``SIDE``."""
    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    times = max(1, SIDE // max(pixels.shape))
    return pixels.repeat(times, 0).repeat(times, 1)


def page(predictor: Predictor) -> gradio.Blocks:
    """The page; in a notebook, ``page(load("best.ckpt")).launch()``. Networks of digits get a sketch pad."""
    import gradio as gr
    import torch
    from hydra.utils import execution_whitelist

    from imgclf.evaluation.grad_cam import grad_cam

    def seen_by_server(source: str | Image.Image | None) -> Look:
        with execution_whitelist((), reset=True):  # Hydra's does not reach a server's threads; none is needed here
            return look(predictor, source)

    blank = torch.zeros(1, *predictor.image_shape, dtype=torch.uint8)
    explained = grad_cam(predictor, blank, torch.tensor([0])) is not None
    names = predictor.class_names
    still = {"interactive": False, "format": "png", "height": 320, "buttons": []}
    # Kept from running side by side: Grad-CAM hooks into the one network.
    alone: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_id": "network"}
    pad = None
    with gr.Blocks(title="imgclf", analytics_enabled=False, delete_cache=(KEPT, KEPT)) as blocks:
        with gr.Row():
            with gr.Column(scale=2, min_width=CANVAS + 20):
                if predictor.reads_handwriting:
                    with gr.Tab("Draw a digit"):
                        pad = gr.HTML(**PAD, elem_id="pad")
                with gr.Tab("Upload an image"):
                    file = gr.File(label=f"JPEG, PNG, BMP, TIFF or WebP, up to {UPLOAD}", elem_id="file")
                    given = gr.Image(label="Your image", **still)
            with gr.Column(scale=3):
                answer = gr.Textbox(label="Answer", interactive=False, max_lines=4, elem_id="answer")
                with gr.Row():
                    seen = gr.Image(label="What the network saw", elem_id="seen", **still)
                    if explained:
                        of = names[1] if len(names) == 2 else "the answer"
                        evidence = gr.Image(label=f"Evidence for {of} (Grad-CAM)", elem_id="evidence", **still)
                    else:
                        evidence = gr.State()
                        gr.Markdown("No evidence is shown: this network has no layer with a height and a width.")
                bars = gr.Label(label="Probabilities", num_top_classes=SHOWN, show_heading=False, elem_id="bars")
        shown = [answer, bars, seen, evidence]
        if pad is not None:
            pad.input(lambda url: seen_by_server(_drawing(url))[:4], pad, shown, api_name="draw", **alone)
        file.change(seen_by_server, file, [*shown, given], api_name="upload", **alone)
    return blocks


def _drawing(url: str | None) -> Image.Image | None:
    """What a canvas has for its content: a PNG file in base 64."""
    # Its size is looked at before it is decoded: by open_image.
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])), formats=["PNG"]) if url else None


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__.strip())
        return
    ckpt, port = _arguments(sys.argv[1:])
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the page needs gradio: pip install -e '.[demo]'")
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((ADDRESS, port))
        except OSError as error:
            raise OSError(f"port={port}: {error.strerror}; choose another, as in port={port % 60000 + 1111}") from error
    from imgclf import load

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves no folder behind either
    predictor = load(ckpt)
    # gradio asks its own server whether it is there, through a proxy if it may.
    os.environ["no_proxy"] = f"{os.environ.get('no_proxy') or os.environ.get('NO_PROXY', '')},{ADDRESS}".strip(",")
    with TemporaryDirectory(prefix="imgclf-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # gradio's own is shared by all users of the machine, and stays
        blocks = page(predictor)
        blocks.launch(
            server_name=ADDRESS,
            server_port=port,
            share=False,
            ssr_mode=False,
            run_history=False,  # would keep images in the browser
            max_file_size=UPLOAD,
            footer_links=[],
            css="#answer textarea { font-size: 1.4rem } #seen img, #evidence img { image-rendering: pixelated }",
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"{ckpt} on http://{ADDRESS}:{port} (Ctrl-C ends it)", flush=True)
        blocks.block_thread()


def _arguments(words: list[str]) -> tuple[str, int]:
    given = {name: value for name, _, value in (word.partition("=") for word in words)}
    unknown = [name for name in given if name not in ("ckpt", "port")]
    if unknown or not given.get("ckpt"):
        wrong = f"unknown option {unknown[0]}" if unknown else "ckpt is missing"
        raise ValueError(f"{wrong}: python -m imgclf.demo ckpt=outputs/NAME/TIME/checkpoints/best.ckpt [port=7860]")
    port = given.get("port", "7860")
    if not (port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(f"port={port}: give a whole number from 1 to 65535")
    return given["ckpt"], int(port)


if __name__ == "__main__":
    cli.run(main)

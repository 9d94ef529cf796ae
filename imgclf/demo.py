"""A page to try a trained network on: python -m imgclf.demo ckpt=PATH [port=7860] [unsure_below=0.8]

Draw a digit, or drop a photograph, scan or X-ray: the page shows what the network saw, what it answers, and where its
evidence is. The page is served to this machine only and loads nothing from the internet; your images are deleted when
it ends. It needs gradio: pip install -e '.[demo]'
"""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import re
import signal
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from imgclf import cli
from imgclf.core.text import printable
from imgclf.help import key_values

if TYPE_CHECKING:
    import gradio
    from torch import Tensor

    from imgclf.inference.predictor import Predictor

ADDRESS = "127.0.0.1"
MAX_UPLOAD = "20 MB"
KEPT_SECONDS = 3600  # an upload is deleted after this time while the page goes on
CANVAS, PEN = 400, 24  # pixels of the sketch pad's sides and of its pen
SIDE = 280  # pixels; small images are enlarged to it
SHOWN_CLASSES = 10  # the most probable ones

# gradio's own sketch pad asks the user to pick up its pen first, and the browser to have WebGL.
SKETCH_PAD = {
    "html_template": "<button>Clear</button>",
    "css_template": """
        canvas { display: block; margin-bottom: 1rem; border: 1px solid #888; max-width: 100%; touch-action: none }
        button { padding: 0.3rem 1rem; border: 1px solid #888; border-radius: 4px }""",
    "js_on_load": f"""
        const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
        const clear = () => {{ pen.fillStyle = "white"; pen.fillRect(0, 0, {CANVAS}, {CANVAS}); }};
        const send = (drawing) => {{ props.value = drawing; trigger("input"); }};
        const drawTo = (event) => {{
            const box = canvas.getBoundingClientRect(), scale = {CANVAS} / box.width;
            pen.lineTo((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
            pen.stroke();
        }};
        canvas.width = canvas.height = {CANVAS}; clear();
        Object.assign(pen, {{ lineWidth: {PEN}, lineCap: "round", lineJoin: "round" }});
        let down = false;
        canvas.onpointerdown = (event) => {{
            down = true;
            pen.beginPath();
            drawTo(event); drawTo(event);  // a click leaves a dot
            canvas.setPointerCapture(event.pointerId);
        }};
        canvas.onpointermove = (event) => down && drawTo(event);
        canvas.onpointerup = canvas.onpointercancel = () => {{ down = false; send(canvas.toDataURL()); }};
        element.querySelector("button").onclick = () => {{ clear(); send(null); }};
        element.prepend(canvas);""",
}


class Explanation(NamedTuple):
    """What the page shows of an image; all but the answer and the original are None if there is no answer."""

    answer: str  # the class and its probability, or why there is none
    probabilities: dict[str, float] | None = None  # by class name
    input: np.ndarray | None = None  # the network's input, uint8 (H, W, 3); the pixels of a small image are enlarged
    evidence: np.ndarray | None = None  # Grad-CAM over the input, if the network has a layer with a height and a width
    original: Image.Image | None = None  # the image, if it came as a file, at most CANVAS pixels a side


def explain_image(predictor: Predictor, source: str | Image.Image | None, unsure_below: float = 0.0) -> Explanation:
    """Predicts an image file or PIL image, read as ``predict`` reads it, and explains the answer.

    The evidence is for the second of two classes, else for the answer. Without an image (None) the answer is empty. An
    image that cannot be read gets its error as the answer. An answer below ``unsure_below`` is "unsure".
    """
    # lazy: torch takes seconds to import, and --help comes at once
    import torch

    from imgclf.evaluation.grad_cam import grad_cam
    from imgclf.figures.classification import overlay_heat_map
    from imgclf.imaging.image_files import open_image

    if source is None:
        return Explanation("")
    original = None
    try:
        inputs, (fault,) = predictor.preprocess(source)
        if not isinstance(source, Image.Image):
            original = open_image(source, CANVAS, bits=predictor.bits).convert("RGB")
            original.thumbnail((CANVAS, CANVAS))
    except (OSError, ValueError) as error:
        message = str(error)
        if isinstance(source, str):  # the user knows the file's name, not the temporary folder that it was put into
            message = message.replace(printable(source), printable(Path(source).name))
        return Explanation(message)
    if fault:
        return Explanation(fault, original=original)
    probabilities, names = predictor.logits(inputs).softmax(1), predictor.class_names
    (prediction,) = predictor.to_predictions(probabilities)
    (told,) = predictor.to_predictions(probabilities, unsure_below)
    answer, explained = f"{told.class_name}, {prediction.probability:.0%}", prediction.predicted
    if len(names) == 2:
        answer, explained = f"{answer} (the threshold of {names[1]} is {predictor.threshold:.1%})", 1
    heat = grad_cam(predictor, inputs, torch.tensor([explained]))
    plain = overlay_heat_map(inputs, torch.zeros(1, *inputs.shape[2:]))[0]
    return Explanation(
        answer,
        probabilities=dict(zip(names, probabilities[0].tolist(), strict=True)),
        input=_enlarge(plain),
        evidence=None if heat is None else _enlarge(overlay_heat_map(inputs, heat)[0]),
        original=original,
    )


def build_page(predictor: Predictor, unsure_below: float = 0.0) -> gradio.Blocks:
    """The page of one network; networks that read handwriting get a sketch pad.

    Example:
        >>> build_page(load("best.ckpt")).launch()
    """
    # lazy: gradio is an optional package, and torch takes seconds to import
    import gradio as gr
    import torch
    from hydra.utils import execution_whitelist

    from imgclf.evaluation.grad_cam import grad_cam

    def explain(source: str | Image.Image | None) -> Explanation:
        # The command's whitelist does not reach the threads of a server, which need to instantiate nothing.
        with execution_whitelist((), reset=True):
            return explain_image(predictor, source, unsure_below)

    has_evidence = grad_cam(predictor, torch.zeros(1, *predictor.image_shape), torch.tensor([0])) is not None
    names = predictor.class_names
    picture = {"interactive": False, "format": "png", "height": 320, "buttons": []}
    # One request at a time, because Grad-CAM hooks into the one network.
    event: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_id": "network"}
    pad = None
    with gr.Blocks(title="imgclf", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        with gr.Row():
            with gr.Column(scale=2, min_width=CANVAS + 20):
                if predictor.reads_handwriting:
                    with gr.Tab("Draw a digit"):
                        pad = gr.HTML(**SKETCH_PAD, elem_id="pad")
                with gr.Tab("Upload an image"):
                    file = gr.File(label=f"JPEG, PNG, TIFF, HEIC, DICOM, ..., up to {MAX_UPLOAD}", elem_id="file")
                    original = gr.Image(label="Your image", **picture)
            with gr.Column(scale=3):
                answer = gr.Textbox(label="Answer", interactive=False, max_lines=4, elem_id="answer")
                with gr.Row():
                    seen = gr.Image(label="What the network saw", elem_id="seen", **picture)
                    if has_evidence:
                        of = names[1] if len(names) == 2 else "the answer"
                        evidence = gr.Image(label=f"Evidence for {of} (Grad-CAM)", elem_id="evidence", **picture)
                    else:
                        evidence = gr.State()
                        gr.Markdown("No evidence is shown: this network has no layer with a height and a width.")
                bars = gr.Label(
                    label="Probabilities", num_top_classes=SHOWN_CLASSES, show_heading=False, elem_id="bars"
                )
        outputs = [answer, bars, seen, evidence]
        if pad is not None:
            pad.input(lambda url: explain(_decode_drawing(url))[:4], pad, outputs, api_name="draw", **event)
        file.change(explain, file, [*outputs, original], api_name="upload", **event)
    return blocks


def _enlarge(picture: Tensor) -> np.ndarray:
    """Float (3, H, W) in [0, 1] as uint8 (H, W, 3), its pixels repeated as long as that stays within ``SIDE``."""
    pixels = (picture * 255).round().byte().permute(1, 2, 0).numpy()
    factor = max(1, SIDE // max(pixels.shape))
    return pixels.repeat(factor, 0).repeat(factor, 1)


def _decode_drawing(url: str | None) -> Image.Image | None:
    """The drawing of a canvas, which sends a PNG file in base 64; its size is checked before it is decoded further."""
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])), formats=["PNG"]) if url else None


def main(words: list[str]) -> None:
    """Runs the command with its arguments, as ``__doc__`` has them, until Ctrl-C."""
    given = key_values(words, __doc__, ckpt="", port="7860", unsure_below="0")
    if given is None:
        return
    if not (given["port"].isdecimal() and 0 < int(given["port"]) < 2**16):
        raise ValueError(f"port={given['port']}: give a whole number from 1 to 65535")
    ckpt, port = given["ckpt"], int(given["port"])
    if not re.fullmatch(r"[01]|0?\.\d+", given["unsure_below"]):
        raise ValueError(f"unsure_below={given['unsure_below']}: give a number from 0 to 1")
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the page needs gradio: pip install -e '.[demo]'")
    try:
        socket.create_server((ADDRESS, port)).close()
    except OSError as error:
        fault = os.strerror(error.errno or 0)
        raise OSError(f"port={port}: {fault}; choose another, as in port={port % 60000 + 1111}") from error
    # lazy: torch takes seconds to import, and --help and wrong arguments are answered at once
    from imgclf import load

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM removes the temporary folder too
    predictor = load(ckpt)
    # gradio asks its own server whether it is there, and would do so through a proxy.
    os.environ["no_proxy"] = f"{os.environ.get('no_proxy') or os.environ.get('NO_PROXY', '')},{ADDRESS}".strip(",")
    with TemporaryDirectory(prefix="imgclf-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # all users of a machine share gradio's own folder, and it stays
        page = build_page(predictor, float(given["unsure_below"]))
        page.launch(
            server_name=ADDRESS,
            server_port=port,
            share=False,
            ssr_mode=False,
            run_history=False,  # the history would keep images in the browser
            max_file_size=MAX_UPLOAD,
            footer_links=[],
            css="#answer textarea { font-size: 1.4rem } #seen img, #evidence img { image-rendering: pixelated }",
            quiet=True,
            prevent_thread_lock=True,
        )
        print(f"{ckpt} on http://{ADDRESS}:{port} (Ctrl-C ends it)", flush=True)
        page.block_thread()


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))

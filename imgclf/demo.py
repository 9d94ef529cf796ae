"""A page in the browser to try a trained network on.

    python -m imgclf.demo ckpt=RUN/checkpoints/best.ckpt

  ckpt=PATH          a checkpoint of train.py
  port=7860          of the page's address
  host=127.0.0.1     0.0.0.0 serves everybody in your network, your phone too
  unsure_below=0     answers of a lower probability become "unsure"

Draw a digit, photograph one, or drop images of your own: the page shows what
the network saw, what it answers, and where its evidence is. Several images get
a table that can be saved. The page loads nothing from the internet, and your
images are deleted when it ends. It needs gradio: pip install -e '.[demo]'
"""

from __future__ import annotations

import base64
import errno
import importlib.util
import io
import os
import re
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TYPE_CHECKING, Any

from PIL import Image

from imgclf import cli
from imgclf.core.files import write_csv
from imgclf.help import key_values

if TYPE_CHECKING:
    import gradio

    from imgclf.inference.predictor import Predictor

PHOTO_SIDE = 1600  # pixels; the browser shrinks a photograph to it before it is sent
MAX_UPLOAD = "20 MB"
KEPT_SECONDS = 3600  # an upload is deleted after this time while the page goes on
CANVAS, PEN = 400, 24  # pixels of the sketch pad's sides and of its pen
TABLE = ["file", "answer", "probability"]  # the columns that are shown
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
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", "Sketch pad: draw a digit with a finger, a pen or the mouse");
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

# A phone opens its camera. gradio's own camera needs a secure connection, which a page in a home network has not.
CAMERA = {
    "html_template": """<label>Take a photograph
        <input type="file" accept="image/*" capture="environment"></label> <output></output>""",
    "css_template": "label { display: block } input { display: block; max-width: 100%; margin-top: 0.3rem }",
    "js_on_load": f"""
        const input = element.querySelector("input"), told = element.querySelector("output");
        input.onchange = async () => {{
            told.textContent = "";
            if (!input.files.length) return;
            try {{
                const photo = await createImageBitmap(input.files[0]);
                const scale = Math.min(1, {PHOTO_SIDE} / Math.max(photo.width, photo.height));
                const canvas = document.createElement("canvas");
                canvas.width = Math.round(photo.width * scale); canvas.height = Math.round(photo.height * scale);
                canvas.getContext("2d").drawImage(photo, 0, 0, canvas.width, canvas.height);
                props.value = canvas.toDataURL("image/jpeg", 0.95);
                trigger("input");
            }} catch {{
                told.textContent = "This browser cannot read the file. Drop it below.";
            }}
        }};""",
}


def build_page(predictor: Predictor, unsure_below: float = 0.0) -> gradio.Blocks:
    """The page of one network; networks that read handwriting get a sketch pad.

    Example:
        >>> build_page(load("best.ckpt")).launch()
    """
    # lazy: gradio is an optional package, and torch takes seconds to import
    import gradio as gr
    import torch
    from hydra.utils import execution_whitelist

    from imgclf.evaluation import explain as explanations
    from imgclf.evaluation.grad_cam import grad_cam

    def explain(source: str | Image.Image | None) -> explanations.Explanation:
        # The command's whitelist does not reach the threads of a server, which need to instantiate nothing.
        with execution_whitelist((), reset=True):
            return explanations.explain_image(predictor, source, unsure_below)

    def upload(files: Sequence[str] | None) -> list[Any]:
        """Explains the first file, and tabulates several."""
        files = files or []
        with execution_whitelist((), reset=True):
            columns, rows = explanations.predict_uploads(predictor, files if len(files) > 1 else [], unsure_below)
        shown = [[row[0], row[4], "" if row[5] is None else f"{float(row[5]):.0%}"] for row in rows]
        csv = write_csv(Path(mkdtemp(prefix="imgclf-")) / "predictions.csv", columns, rows) if rows else None
        table = gr.Dataframe(shown, visible=bool(rows)), gr.DownloadButton(value=csv, visible=bool(rows))
        return [*explain(files[0] if files else None), *table]

    def photograph(url: str | None) -> list[Any]:
        image = _decode_picture(url)
        return [*explain(image)[:4], image]

    has_evidence = grad_cam(predictor, torch.zeros(1, *predictor.image_shape), torch.tensor([0])) is not None
    names = predictor.class_names

    def picture(label: str, name: str) -> gradio.Image:
        look: dict[str, Any] = {"interactive": False, "format": "png", "height": 320, "buttons": []}
        return gr.Image(label=label, alt_text=label, elem_id=name, **look)

    # One request at a time, because Grad-CAM hooks into the one network.
    event: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_id": "network"}
    pad = None
    with gr.Blocks(title="imgclf", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as blocks:
        with gr.Row():
            with gr.Column(scale=2, min_width=CANVAS + 20):
                if predictor.reads_handwriting:
                    with gr.Tab("Draw a digit"):
                        pad = gr.HTML(**SKETCH_PAD, elem_id="pad")
                with gr.Tab("Your images"):
                    camera = gr.HTML(**CAMERA, elem_id="camera")
                    label = f"Images: JPEG, PNG, TIFF, HEIC, DICOM, ..., up to {MAX_UPLOAD} each"
                    file = gr.File(label=label, file_count="multiple", elem_id="file")
                    original = picture("Your image, the first of several", "original")
            with gr.Column(scale=3):
                answer = gr.Textbox(label="Answer", interactive=False, max_lines=4, elem_id="answer")
                with gr.Row():
                    seen = picture("What the network saw", "seen")
                    if has_evidence:
                        of = names[1] if len(names) == 2 else "the answer"
                        evidence = picture(f"Evidence for {of} (Grad-CAM)", "evidence")
                    else:
                        evidence = gr.State()
                        gr.Markdown("No evidence is shown: this network has no layer with a height and a width.")
                bars = gr.Label(
                    label="Probabilities", num_top_classes=SHOWN_CLASSES, show_heading=False, elem_id="bars"
                )
                table = gr.Dataframe(
                    headers=TABLE, label="Answers", interactive=False, visible=False, wrap=True, elem_id="table"
                )
                saved = gr.DownloadButton("Save predictions.csv", visible=False, elem_id="save")
        outputs = [answer, bars, seen, evidence]
        if pad is not None:
            pad.input(lambda url: explain(_decode_picture(url))[:4], pad, outputs, api_name="draw", **event)
        camera.input(photograph, camera, [*outputs, original], api_name="photograph", **event)
        file.change(upload, file, [*outputs, original, table, saved], api_name="upload", **event)
    return blocks


def _decode_picture(url: str | None) -> Image.Image | None:
    """What a canvas sends: a PNG or JPEG file in base 64, whose size is checked before it is decoded further."""
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])), formats=["PNG", "JPEG"]) if url else None


def main(words: list[str]) -> None:
    """Runs the command with its arguments, as ``__doc__`` has them, until Ctrl-C."""
    given = key_values(words, __doc__, ckpt="", port="7860", unsure_below="0", host="127.0.0.1")
    if given is None:
        return
    if not (given["port"].isdecimal() and 0 < int(given["port"]) < 2**16):
        raise ValueError(f"port={given['port']}: give a whole number from 1 to 65535")
    ckpt, port, host = given["ckpt"], int(given["port"]), given["host"]
    if not re.fullmatch(r"[01]|0?\.\d+", given["unsure_below"]):
        raise ValueError(f"unsure_below={given['unsure_below']}: give a number from 0 to 1")
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("the page needs gradio: pip install -e '.[demo]'")
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(f"host={host}: this machine has no such address; try host=0.0.0.0") from error
        fault = os.strerror(error.errno or 0)
        raise OSError(f"port={port}: {fault}; choose another, as in port={port % 60000 + 1111}") from error
    # lazy: torch takes seconds to import, and --help and wrong arguments are answered at once
    from imgclf import load

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM removes the temporary folder too
    predictor = load(ckpt)
    # gradio asks its own server whether it is there, and would do so through a proxy.
    os.environ["no_proxy"] = f"{os.environ.get('no_proxy') or os.environ.get('NO_PROXY', '')},127.0.0.1".strip(",")
    with TemporaryDirectory(prefix="imgclf-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # all users of a machine share gradio's own folder, and it stays
        page = build_page(predictor, float(given["unsure_below"]))
        page.launch(
            server_name=host,
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
        print(f"{ckpt} on http://{host}:{port} (Ctrl-C ends it)", flush=True)
        page.block_thread()


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))

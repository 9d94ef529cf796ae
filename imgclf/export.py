"""The command that writes a checkpoint as an ONNX file: python -m imgclf.export ckpt=... to=model.onnx."""

import sys
from collections.abc import Sequence

from imgclf import cli

USAGE = """Writes a checkpoint as one ONNX file that runs without PyTorch, and checks it with onnxruntime.

    python -m imgclf.export ckpt=DIR/checkpoints/best.ckpt to=model.onnx

  ckpt=PATH              a checkpoint of train.py
  to=FILE                a new file, ending in .onnx

Input: images, uint8 (N, C, H, W). Outputs: probabilities, float32 (N, classes), and predicted, int64 (N,).
Class names are in the file's metadata.
"""


def main(words: Sequence[str]) -> None:
    """Runs the command with its arguments, ``ckpt=PATH`` and ``to=FILE``."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return
    given = {"ckpt": "", "to": ""}
    for word in words:
        name, _, value = word.partition("=")
        if name not in given:
            raise ValueError(f"unknown argument {word}: give ckpt=PATH and to=FILE")
        given[name] = value.strip("'\"")  # a user of the other commands may have quoted it for Hydra
    if not given["ckpt"]:
        raise ValueError("ckpt=PATH is missing: name a checkpoint, such as ckpt=outputs/.../checkpoints/best.ckpt")
    if not given["to"]:
        raise ValueError("to=FILE is missing: name the file to write, such as to=model.onnx")

    # lazy: torch takes seconds to import, and --help comes at once
    from imgclf.inference.onnx_export import export

    difference = export(given["ckpt"], given["to"])
    print(f"{given['to']}: onnxruntime's probabilities differ from the checkpoint's by {difference:.2g} at most")


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))

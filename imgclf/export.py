"""Writes a checkpoint as one ONNX file, and checks it with onnxruntime.

    python -m imgclf.export ckpt=DIR/checkpoints/best.ckpt to=model.onnx

  ckpt=PATH              a checkpoint of train.py
  to=FILE                a new file, ending in .onnx

The file runs without PyTorch. Input: images, uint8 (N, C, H, W). Outputs:
probabilities, float32 (N, classes), and predicted, int64 (N,).
Class names are in the file's metadata.
"""

import sys
from collections.abc import Sequence

from imgclf import cli
from imgclf.help import key_values


def main(words: Sequence[str]) -> None:
    """Runs the command with its arguments, ``ckpt=PATH`` and ``to=FILE``."""
    given = key_values(words, __doc__, ckpt="", to="")
    if given is None:
        return
    # lazy: torch takes seconds to import, and --help comes at once
    from imgclf.inference.onnx_export import export

    difference = export(given["ckpt"], given["to"])
    print(f"{given['to']}: onnxruntime's probabilities differ from the checkpoint's by {difference:.2g} at most")


if __name__ == "__main__":
    cli.run(lambda: main(sys.argv[1:]))

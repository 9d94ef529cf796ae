"""imgclf: image classification with Lightning, Hydra and TensorBoard.

``from imgclf import load; load("best.ckpt").predict(images)`` is all a notebook needs.
"""

from imgclf.core import names

__version__ = names.VERSION


def __getattr__(name: str):
    # torch and Lightning take seconds to import: nothing here may pull them in before they are needed.
    if name == "load":
        from imgclf.inference.load import load

        return load
    raise AttributeError(f"module 'imgclf' has no attribute {name!r}")

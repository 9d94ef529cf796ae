"""The command python -m imgclf.export."""

import os
import subprocess
import sys

import pytest

from imgclf.checkpoints.files import METADATA_KEY, AtomicCheckpointIO
from imgclf.checkpoints.metadata import build_metadata
from imgclf.data.digits import Digits
from imgclf.models.classifier import Classifier
from imgclf.models.mlp import MLP
from tests.conftest import PROJECT

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture
def small(tmp_path):
    classifier = Classifier(MLP(hidden=[8]), Digits.class_names)
    content = {"state_dict": classifier.state_dict(), METADATA_KEY: build_metadata(classifier)}
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "small.ckpt")
    return tmp_path / "small.ckpt"


def test_the_command(small, script, tmp_path):
    result = script("imgclf/export.py", f"ckpt={small}", "to=a.onnx")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("a.onnx: onnxruntime's probabilities differ from the checkpoint's by ")
    before = (tmp_path / "a.onnx").read_bytes()
    error = script("imgclf/export.py", f"ckpt={small}", "to=a.onnx").error
    assert error == "error: to=a.onnx: exists already; choose another name, or remove it first"
    assert (tmp_path / "a.onnx").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.onnx", "small.ckpt"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "ckpt is missing"),
        (["to=a.onnx"], "ckpt is missing"),
        (["ckpt=small.ckpt"], "to is missing"),
        (["ckpt=small.ckpt", "to="], "to is missing"),
        (["ckpt=small.ckpt", "to=a.onnx", "opset=18"], "unknown argument opset=18: give ckpt=..., to=..."),
        (["small.ckpt", "a.onnx"], "unknown argument small.ckpt: give ckpt=..., to=..."),
        (["ckpt=none.ckpt", "to=a.onnx"], "none.ckpt: no such file"),
        (["ckpt=broken.ckpt", "to=a.onnx"], "broken.ckpt: truncated or not a PyTorch checkpoint"),
        (["ckpt=small.ckpt", "to=a.pt"], "to=a.pt: give a name that ends in .onnx, such as to=model.onnx"),
        (["ckpt=small.ckpt", "to=broken.ckpt/a.onnx"], "to=broken.ckpt/a.onnx: broken.ckpt is not a folder"),
    ],
)
def test_bad_input_gets_one_line(words, expected, small, script, tmp_path):
    (tmp_path / "broken.ckpt").write_text("hello")
    assert script("imgclf/export.py", *words).error.startswith(f"error: {expected}")
    assert sorted(os.listdir(tmp_path)) == ["broken.ckpt", "small.ckpt"]


def test_without_the_packages_a_line_says_how_to_get_them(small, script, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    error = script("imgclf/export.py", f"ckpt={small}", "to=a.onnx").error
    assert error == "error: onnxruntime is not installed: pip install -e '.[export]'"


def test_help_comes_at_once():
    code = (
        "import sys; from imgclf.export import main; main(['--help']); "
        "assert not {'torch', 'lightning', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python -m imgclf.export ckpt=DIR/checkpoints/best.ckpt to=model.onnx" in done.stdout

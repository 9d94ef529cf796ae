import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imgclf import __version__, load
from imgclf.checkpoints.files import METADATA_KEY, AtomicCheckpointIO
from imgclf.checkpoints.metadata import build_metadata
from imgclf.data.noisy import NoisyImages
from imgclf.inference.onnx_export import export
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.models.mlp import MLP
from imgclf.models.network import Network
from imgclf.models.resnet import ResNet
from imgclf.models.torchvision_models import TorchvisionNetwork
from tests.conftest import PROJECT

onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")

CASES = {
    "mlp": (lambda: MLP((1, 12, 12), 10, hidden=[16], dropout=0.5), "dataset"),
    "cnn": (lambda: CNN((1, 20, 16), 3, channels=[4, 8], batch_norm=True), "dataset"),
    "cnn, two classes": (lambda: CNN((1, 12, 12), 1, channels=[4]), "image"),
    "resnet": (lambda: ResNet((3, 16, 20), 10, widths=[4, 8]), "image"),
    "resnet18": (lambda: TorchvisionNetwork((3, 32, 32), 10, "resnet18"), "dataset"),
}


def some_images(network, count=64):
    """Blotches, so that every image is another to a network, whatever its size."""
    channels, *size = network.init_args["image_shape"]
    return (F.interpolate(torch.rand(count, channels, 4, 4), size) * 255).to(torch.uint8)


def classifier(network, **options) -> Classifier:
    """With an opinion of every image: an untrained network finds all classes about as probable."""
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    names = [f"class {i}" for i in range(max(2, last.out_features))]
    channels = network.init_args["image_shape"][0]
    made = Classifier(network, list(names), [0.3, 0.4, 0.5][:channels], [0.2, 0.3, 0.4][:channels], **options)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.2, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.2, 0.2)
    with torch.no_grad():
        logits = made.eval()(some_images(network))[:, -last.out_features :]
        scale = 2 / logits.std(0)
        last.weight.mul_(scale[:, None])
        last.bias.sub_(logits.mean(0)).mul_(scale)
    return made


def checkpoint(path, network, data=None, **options):
    made = classifier(network, **options)
    AtomicCheckpointIO().save_checkpoint(
        {"state_dict": made.state_dict(), METADATA_KEY: build_metadata(made, data)}, path
    )
    return path


@pytest.fixture
def small(tmp_path):
    data = NoisyImages(base="digits", variation="rot", backgrounds=str(tmp_path))
    return checkpoint(tmp_path / "small.ckpt", MLP((1, 28, 28), 10, hidden=[8]), data)


def ask(path, images) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities", "predicted"], {"images": images.numpy()})


def metadata(path) -> dict[str, str]:
    return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map


@pytest.mark.parametrize("case", CASES)
def test_the_file_answers_as_the_checkpoint_does(case, tmp_path):
    network, normalize = CASES[case][0](), CASES[case][1]
    path = checkpoint(tmp_path / "a.ckpt", network, normalize=normalize, threshold=0.2)
    difference = export(path, tmp_path / "a.onnx")
    assert 0 <= difference <= 1e-4
    onnx.checker.check_model(tmp_path / "a.onnx", full_check=True)
    predictor = load(path)
    for count in (0, 1, 5, 64):
        images = some_images(network, count)
        probabilities, predicted = ask(tmp_path / "a.onnx", images)
        assert (probabilities.dtype, predicted.dtype) == (np.float32, np.int64)
        assert (probabilities.shape, predicted.shape) == ((count, len(predictor.class_names)), (count,))
        if count:
            np.testing.assert_allclose(probabilities, predictor.predict_proba(images), rtol=0, atol=1e-4)
            assert predicted.tolist() == [answer.predicted for answer in predictor.predict(images)]
    assert probabilities.std(0).min() > 0.05  # the network tells images apart
    if len(predictor.class_names) == 2:
        assert (predicted != probabilities.argmax(1)).any()  # the threshold counts


def test_the_metadata_say_what_the_network_was_trained_for(small, tmp_path):
    export(small, tmp_path / "new" / "folder" / "a.onnx")
    assert os.listdir(tmp_path / "new" / "folder") == ["a.onnx"]  # weights included, nothing beside it
    told = metadata(tmp_path / "new" / "folder" / "a.onnx")
    assert json.loads(told.pop("class_names")) == [f"class {i}" for i in range(10)]
    assert json.loads(told.pop("image_shape")) == [1, 28, 28]
    assert json.loads(told.pop("data")) == {
        "_target_": "imgclf.data.noisy.NoisyImages",
        "base": "digits",
        "variation": "rot",
        "protocol": "full",
    }
    reading = {"image_shape": [1, 28, 28], "reader": "auto", "polarity": "light_on_dark", "fit": "stretch", "bits": 16}
    assert json.loads(told.pop("preprocessing")) == reading
    assert told == {"threshold": "0.5", "normalize": "dataset", "imgclf_version": __version__}
    content = (tmp_path / "new" / "folder" / "a.onnx").read_bytes()
    assert not any(str(place).encode() in content for place in (PROJECT, tmp_path))


def test_a_notebooks_predictor_is_exported_and_left_as_it_was(tmp_path):
    predictor = Predictor(classifier(CNN((3, 12, 12), 1, channels=[4]), threshold=0.3), (3, 12, 12))
    images = some_images(predictor.classifier.network)
    before = predictor.predict_proba(images)
    convolution = predictor.classifier.network.layers[0]
    strides = convolution.weight.stride()
    assert export(predictor, tmp_path / "a.onnx") <= 1e-4
    assert convolution.weight.stride() == strides
    assert torch.equal(predictor.predict_proba(images), before)
    np.testing.assert_allclose(ask(tmp_path / "a.onnx", images)[0], before, rtol=0, atol=1e-4)
    told = metadata(tmp_path / "a.onnx")
    assert float(told["threshold"]) == pytest.approx(0.3)
    assert "data" not in told


ELSEWHERE = """
import json, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "lightning", "onnx", "onnxscript", "imgclf"):
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Missing())
try:
    import torch
    sys.exit("torch is not blocked")
except ImportError:
    pass

import numpy
import onnxruntime

session = onnxruntime.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
probabilities, predicted = session.run(None, {"images": numpy.load("images.npy")})
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
numpy.save("probabilities.npy", probabilities)
print(*(names[index] for index in predicted), sep=",")
"""


def test_the_file_runs_where_there_is_no_torch(small, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    export(small, tmp_path / "a.onnx")
    (tmp_path / "a.onnx").rename(elsewhere / "a.onnx")
    predictor = load(small)
    images = some_images(predictor.classifier.network, 5)
    np.save(elsewhere / "images.npy", images.numpy())
    done = subprocess.run([sys.executable, "-I", "-c", ELSEWHERE], cwd=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().split(",") == [answer.class_name for answer in predictor.predict(images)]
    probabilities = np.load(elsewhere / "probabilities.npy")
    np.testing.assert_allclose(probabilities, predictor.predict_proba(images), rtol=0, atol=1e-4)


class Undecided(Network):
    """Looks at values to choose what to do, which no graph can."""

    def __init__(self, image_shape=(1, 4, 4), num_classes=1):
        super().__init__()
        self.layer = nn.Linear(16, 1)

    def forward(self, images):
        return self.layer(images.flatten(1)) * (1 if images.sum().item() > 0 else -1)


def test_nothing_is_left_of_a_file_that_cannot_be_right(small, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"torch \S+ cannot write this network as ONNX \(.*data-dependent.*\)$"):
        export(Predictor(Classifier(Undecided(), ["a", "b"]), (1, 4, 4)), tmp_path / "a.onnx")
    with monkeypatch.context() as patch:
        patch.setattr("imgclf.inference.onnx_export.MAX_WEIGHT_BYTES", 100)
        with pytest.raises(ValueError, match="GiB, and one ONNX file holds less than 2"):
            export(small, tmp_path / "a.onnx")
    right = Predictor.predict_proba
    for error, shown in ((0.25, r"0\.25"), (float("nan"), "nan")):
        with monkeypatch.context() as patch:
            patch.setattr(Predictor, "predict_proba", lambda *arguments, error=error: right(*arguments) + error)
            with pytest.raises(ArithmeticError, match=f"not written.*checkpoint's by {shown}, more than 0.0001"):
                export(small, tmp_path / "a.onnx")
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "threshold", 0.99)
        two = Predictor(classifier(MLP((1, 12, 12), 1), threshold=0.01), (1, 12, 12))
        with pytest.raises(ArithmeticError, match="decides otherwise"):
            export(two, tmp_path / "a.onnx")
    assert os.listdir(tmp_path) == ["small.ckpt"]

"""A trained classifier as an ONNX file, which runs without PyTorch."""

import contextlib
import copy
import io
import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imgclf.core.files import write_file
from imgclf.core.metrics import decide
from imgclf.core.names import VERSION
from imgclf.inference.load import load
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier

TOLERANCE = 1e-4  # the file's probabilities may differ from the checkpoint's by this much
MAX_WEIGHT_BYTES = 2**31 - 2**20  # a protobuf holds 2 GiB, and the rest of the graph is in it too
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
DATA_ARGUMENTS = ("_target_", "dataset", "base", "variation", "protocol")  # no folders: they exist here only


def export(source: Predictor | str | Path, to: str | Path) -> float:
    """Writes a trained classifier with its normalisation as one self-contained ONNX file.

    The graph takes ``images``, uint8 (N, C, H, W) of the checkpoint's ``image_shape`` and any N. It gives
    ``probabilities``, float32 (N, classes), whose rows sum to 1, and ``predicted``, int64 (N,): the most probable
    class, or, of two classes, the second from the checkpoint's threshold on. Decoding image files and scaling them is
    not part of the graph.

    The file's metadata are strings: "class_names" and "image_shape" (JSON lists), "threshold", "normalize",
    "preprocessing" (a JSON object: how image files become inputs), "imgclf_version" and, if the checkpoint describes
    it, "data": a JSON object of what the network was trained on.

    Args:
        source: what ``imgclf.load`` returns, or a checkpoint's path.
        to: a new file ending in .onnx; its folder is made if it does not exist. After an error there is no such file.

    Returns:
        The largest difference between the file's probabilities, computed by onnxruntime, and those of ``source``, for
        random images in batches of 1 and 5, in float32 on the CPU. It is at most ``TOLERANCE``.

    Raises:
        FileNotFoundError, ValueError: as ``imgclf.load`` does; also for another ending, or for a network that is too
            large for one file or that torch cannot write as ONNX.
        ArithmeticError: the file would answer differently from ``source``.
        OSError: ``to`` exists or cannot be written, or a package is not installed.

    Example:
        >>> export("outputs/mnist/run/checkpoints/best.ckpt", "model.onnx")
        2.4e-07
    """
    path = _check_target(to)
    for package in PACKAGES:
        if find_spec(package) is None:
            raise OSError(f"{package} is not installed: pip install -e '.[export]'")
    given = source if isinstance(source, Predictor) else load(source)
    classifier = copy.deepcopy(given.classifier).cpu()
    # The exporter turns weights that are channels_last into slow gathers.
    classifier.network.to(memory_format=torch.contiguous_format)
    predictor, data = Predictor(classifier, given.image_shape), given.metadata.get("data")
    metadata = {
        "class_names": json.dumps(predictor.class_names),
        "image_shape": json.dumps(predictor.image_shape),
        "threshold": str(predictor.threshold),
        "normalize": classifier.normalize,
        "preprocessing": json.dumps(given.preprocessing),
        "imgclf_version": VERSION,
    }
    if isinstance(data, dict):
        metadata["data"] = json.dumps({name: data[name] for name in DATA_ARGUMENTS if name in data}, default=str)
    model = _convert(predictor, metadata)
    try:
        difference = _compare(model, predictor)
    except ArithmeticError as error:
        raise ArithmeticError(f"to={path}: not written, {error}") from error
    write_file(_check_target(path), model)  # checked again, because another process may have made the file meanwhile
    return difference


class _Graph(nn.Module):
    """What the ONNX file computes."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = self.classifier(images).softmax(1)
        return probabilities, decide(probabilities, self.classifier.threshold)


def _check_target(to: str | Path) -> Path:
    """``to`` with ~ replaced; raises unless a new ONNX file can be written there."""
    path = Path(to).expanduser()
    if path.suffix != ".onnx":
        raise ValueError(f"to={path}: give a name that ends in .onnx, such as to=model.onnx")
    if path.exists():
        raise FileExistsError(f"to={path}: exists already; choose another name, or remove it first")
    if not next(folder for folder in path.parents if folder.exists()).is_dir():
        raise NotADirectoryError(f"to={path}: {path.parent} is not a folder")
    return path


def _convert(predictor: Predictor, metadata: dict[str, str]) -> bytes:
    """The content of the ONNX file."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass  # lazy: an optional package

    size = sum(tensor.nbytes for tensor in predictor.classifier.state_dict().values())
    if size > MAX_WEIGHT_BYTES:
        raise ValueError(f"the weights take {size / 2**30:.1f} GiB, and one ONNX file holds less than 2")
    try:
        # Silent, because an error says everything and the result is checked.
        with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(io.StringIO()):
            program: Any = torch.onnx.export(
                _Graph(predictor.classifier).eval(),
                (torch.zeros(2, *predictor.image_shape, dtype=torch.uint8),),  # a batch of 1 would become a constant
                dynamo=True,
                input_names=["images"],
                output_names=["probabilities", "predicted"],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                external_data=False,
                verbose=False,
            )
            # Torch's notes name the source file of every node, with its place on this machine.
            ClearMetadataAndDocStringPass()(program.model)
            program.model.metadata_props.update(metadata)
            return program.model_proto.SerializeToString()
    except Exception as error:  # torch raises anything
        reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)[:200]
        raise ValueError(f"torch {torch.__version__} cannot write this network as ONNX ({reason})") from error


def _compare(model: bytes, predictor: Predictor) -> float:
    """The largest difference between the file's probabilities and the predictor's; raises if the answers differ."""
    import onnxruntime  # lazy: an optional package

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    generator, largest = torch.Generator().manual_seed(0), 0.0
    for count in (1, 5):
        images = torch.randint(256, (count, *predictor.image_shape), generator=generator)
        contrast = torch.linspace(1, 0, count).view(-1, 1, 1, 1)  # the last image is black and has no deviation
        images = (images * contrast).to(torch.uint8)
        answers = session.run(["probabilities", "predicted"], {"images": images.numpy()})
        probabilities, predicted = (torch.from_numpy(answer) for answer in answers)
        difference = float((probabilities - predictor.predict_proba(images)).abs().max())
        if not difference <= TOLERANCE:  # NaN does not agree either
            raise ArithmeticError(
                f"onnxruntime's probabilities differ from the checkpoint's by {difference:.2g}, more than {TOLERANCE:g}"
            )
        if not torch.equal(predicted, decide(probabilities, predictor.threshold)):
            raise ArithmeticError("onnxruntime decides otherwise from the same probabilities")
        largest = max(largest, difference)
    return largest

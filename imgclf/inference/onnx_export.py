"""A trained classifier as an ONNX file, which runs without PyTorch."""

import contextlib
import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgclf.core.names import VERSION

if TYPE_CHECKING:
    from imgclf.inference.predictor import Predictor

TOLERANCE = 1e-4  # between the file's probabilities and the checkpoint's
LARGEST = 2**31 - 2**20  # bytes of weights, in one protobuf with the rest of the graph
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
NAMES_OF_DATA = ("_target_", "dataset", "base", "variation", "protocol")  # not folders, which are this machine's


def export(source: "Predictor | str | Path", path: str | Path) -> float:
    """Writes a trained classifier, preprocessing included, as one self-contained ONNX file.

    The graph takes ``images``, uint8 (N, C, H, W) of the checkpoint's ``image_shape`` and any N, and gives
    ``probabilities``, float32 (N, classes), rows summing to 1, and ``predicted``, int64 (N,): the most probable class;
    of two, the second from the checkpoint's threshold on. What is done to image files before that (decoding, scaling
    to ``image_shape``) is not in it.

    Metadata, all strings:
        class_names: JSON list, in the order of the class indices.
        image_shape: JSON list of channels, height, width.
        threshold: number; of two classes, the probability from which ``predicted`` is the second.
        normalize: "dataset" or "image", which the graph does already.
        imgclf_version: what wrote the file.
        data: JSON object, what the network was trained on: ``_target_``, the data module, and those of its arguments
            that name the data (dataset, base, variation, protocol). Only if ``source`` is a checkpoint that says it.

    Args:
        source: what ``imgclf.load`` returns, or a checkpoint's path.
        path: a new file ending in .onnx; its folder is made if it does not exist.

    Returns:
        The largest difference between the probabilities of the file, run by onnxruntime, and those of ``source``, in
        float32 on the CPU, for random images in batches of 1 and 5. At most ``TOLERANCE``.

    Raises:
        FileExistsError: there is such a file.
        FileNotFoundError, ValueError: as ``imgclf.load`` does; and for a wrong ending, or a network that is too large
            for one file or that torch cannot write as ONNX.
        ArithmeticError: the file would answer otherwise than ``source``.
        OSError: a package is not installed, or the file cannot be written.

    Whatever is raised, nothing is left at ``path``.
    """
    path = _target(path)
    for package in PACKAGES:
        if find_spec(package) is None:
            raise OSError(f"{package} is not installed: pip install -e '.[export]'")

    from imgclf.checkpoints.files import METADATA_KEY, read_checkpoint
    from imgclf.core.files import write_file
    from imgclf.inference.load import load

    data = None
    if isinstance(source, str | Path):
        source, data = load(source), read_checkpoint(source)[METADATA_KEY].get("data")
    predictor = _on_cpu(source)
    metadata = {
        "class_names": json.dumps(predictor.class_names),
        "image_shape": json.dumps(predictor.image_shape),
        "threshold": str(predictor.threshold),
        "normalize": predictor.classifier.normalize,
        "imgclf_version": VERSION,
    }
    if isinstance(data, dict):
        metadata["data"] = json.dumps({name: data[name] for name in NAMES_OF_DATA if name in data}, default=str)
    model = _onnx(predictor, metadata)
    difference = _difference(model, predictor, path)
    write_file(_target(path), model)  # which may have come to exist meanwhile
    return difference


def _target(path: str | Path) -> Path:
    """``path`` with ~ replaced; raises unless a new ONNX file can be there."""
    path = Path(path).expanduser()
    if path.suffix != ".onnx":
        raise ValueError(f"to={path}: give a name that ends in .onnx, such as to=model.onnx")
    if path.exists():
        raise FileExistsError(f"to={path}: exists already; choose another name, or remove it first")
    if not next(folder for folder in path.parents if folder.exists()).is_dir():
        raise NotADirectoryError(f"to={path}: {path.parent} is not a folder")
    return path


def _on_cpu(source: "Predictor") -> "Predictor":
    """A copy on the CPU. In torch's usual memory format: of the other one the exporter makes slow gathers."""
    from imgclf.inference.predictor import Predictor
    from imgclf.models.classifier import Classifier

    given = source.classifier
    statistics, network = (given.mean.flatten().tolist(), given.std.flatten().tolist()), copy.deepcopy(given.network)
    classifier = Classifier(
        network.cpu(), given.class_names, *statistics, normalize=given.normalize, channels_last=False
    )
    classifier.load_state_dict(given.state_dict())
    return Predictor(classifier.cpu(), source.image_shape)


def _onnx(predictor: "Predictor", metadata: dict[str, str]) -> bytes:
    """The ONNX file's content."""
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    from torch import Tensor, nn

    from imgclf.core.metrics import decide

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.classifier = predictor.classifier

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            probabilities = self.classifier(images).softmax(1)
            return probabilities, decide(probabilities, self.classifier.threshold)

    size = sum(tensor.nbytes for tensor in predictor.classifier.state_dict().values())
    if size > LARGEST:
        raise ValueError(f"the weights take {size / 2**30:.1f} GiB, and one ONNX file holds less than 2")
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                Graph().eval(),
                (torch.zeros(2, *predictor.image_shape, dtype=torch.uint8),),  # a batch of 1 would become a constant
                dynamo=True,
                input_names=["images"],
                output_names=["probabilities", "predicted"],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                external_data=False,
                verbose=False,
            )
            # Torch's notes name the source file of every node, as it lies on this machine.
            ClearMetadataAndDocStringPass()(program.model)
            program.model.metadata_props.update(metadata)
            return program.model_proto.SerializeToString()
    except Exception as error:  # torch raises anything
        reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)[:200]
        raise ValueError(f"torch {torch.VERSION} cannot write this network as ONNX ({reason})") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter remarks: an error says it all, and what comes out is checked."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def _difference(model: bytes, predictor: "Predictor", path: Path) -> float:
    """The largest one between the file's probabilities and the predictor's; raises ArithmeticError if too large."""
    import onnxruntime
    import torch

    from imgclf.core.metrics import decide

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    generator, differences = torch.Generator().manual_seed(0), []
    for count in (1, 5):
        images = torch.randint(256, (count, *predictor.image_shape), generator=generator)
        contrast = torch.linspace(1, 0, count).view(-1, 1, 1, 1)  # down to a black image, which has no deviation
        images = (images * contrast).to(torch.uint8)
        answers = session.run(["probabilities", "predicted"], {"images": images.numpy()})
        probabilities, predicted = map(torch.from_numpy, answers)
        differences.append(float((probabilities - predictor.predict_proba(images)).abs().max()))
        if not differences[-1] <= TOLERANCE:  # NaN is no agreement either
            raise ArithmeticError(
                f"to={path}: not written, onnxruntime's probabilities differ from the checkpoint's by "
                f"{differences[-1]:.2g}, more than {TOLERANCE:g}"
            )
        if not torch.equal(predicted, decide(probabilities, predictor.threshold)):
            raise ArithmeticError(f"to={path}: not written, onnxruntime decides otherwise from the same probabilities")
    return max(differences)

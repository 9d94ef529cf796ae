"""From a checkpoint to a Predictor."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import execution_whitelist, instantiate

from imgclf.checkpoints.files import METADATA_KEY, read_checkpoint
from imgclf.checkpoints.meta_device import unsaved_tensors, weights_on_meta
from imgclf.checkpoints.metadata import network_classes
from imgclf.checkpoints.untrusted import check_class_names, check_config, check_image_shape, check_weights
from imgclf.data.datamodule import PLAIN_READING
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import NORMALIZATIONS, Classifier, num_logits
from imgclf.models.network import Network

SPARE_PARAMETERS = 100  # a network may replace a few layers while it is built
MAX_UNSAVED_BYTES = 2**28  # for tensors that a network computes when it is built and does not keep in its state_dict


def load(path: str | Path, device: str | torch.device = "cpu") -> Predictor:
    """Rebuilds a trained classifier from the .ckpt file of a run, and puts it on the device, such as "cpu" or "cuda".

    The file may come from a stranger: it can only name networks of imgclf, and it costs about as much memory as it has
    bytes, whatever sizes it declares.

    Raises:
        FileNotFoundError, ValueError: as ``read_checkpoint`` does.
        ValueError: the file names another class than a network of imgclf, or its parts do not fit together.

    Example:
        >>> load("outputs/mnist/run/checkpoints/best.ckpt").predict("seven.png")
        [Prediction(predicted=7, class_name='7', probability=0.998)]
    """
    checkpoint = read_checkpoint(path)
    try:
        predictor = _rebuild(checkpoint, file_bytes=Path(path).stat().st_size)
    except Exception as error:  # a network raises anything when its arguments are nonsense
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        raise ValueError(f"{path}: refused: {reason}") from error
    predictor.classifier.to(device)
    return predictor


def _rebuild(checkpoint: dict[str, Any], file_bytes: int) -> Predictor:
    metadata, weights, epoch = checkpoint[METADATA_KEY], checkpoint["state_dict"], checkpoint.get("epoch")
    image_shape, class_names = _check_metadata(metadata)
    check_weights(weights, image_shape[0], file_bytes)
    with weights_on_meta(max_parameters=len(weights) + SPARE_PARAMETERS):
        network = _build(metadata["network"])
    statistics = {name: weights[name].flatten().tolist() for name in ("mean", "std")}
    classifier = Classifier(network, class_names, **statistics, normalize=metadata["normalize"])
    own = classifier.state_dict()
    fitting = {"temperature": own["temperature"]}  # 1: a checkpoint may lack it
    for name, value in weights.items():
        if name.startswith("loss."):  # the class weights of a loss, which predictions do not need
            continue
        dtype = own[name].dtype if name in own else value.dtype
        if not torch.can_cast(value.dtype, dtype):
            raise ValueError(f"{name} is of type {value.dtype}, but its network needs {dtype}")
        fitting[name] = value.to(dtype)
    classifier.load_state_dict(fitting, assign=True)
    if unsaved := unsaved_tensors(network):
        if sum(tensor.nbytes for tensor in unsaved) > MAX_UNSAVED_BYTES:
            raise ValueError(f"its network computes tensors of more than {MAX_UNSAVED_BYTES} bytes when it is built")
        # Built again with memory: it is no larger than the file, whose weights have just been found to fit.
        classifier.network = _build(metadata["network"])
        classifier.load_state_dict(fitting, assign=True)
    classifier.network.to(memory_format=torch.channels_last)
    preprocessing = {name: metadata["preprocessing"].get(name, usual) for name, usual in PLAIN_READING.items()}
    epoch = epoch + 1 if isinstance(epoch, int) else None
    return Predictor(classifier, image_shape, **preprocessing, metadata=metadata, epoch=epoch)


def _check_metadata(metadata: dict[str, Any]) -> tuple[tuple[int, int, int], list[str]]:
    """Checks what the file says of itself; returns image_shape and class_names."""
    network, preprocessing = check_config(metadata.get("network")), check_config(metadata["preprocessing"])
    check_config(metadata.get("data") or {})
    if network.get("weights"):
        raise ValueError(f"its network would fetch weights ({network['weights']})")
    image_shape = check_image_shape(network.get("image_shape"))
    if preprocessing.get("image_shape") != network["image_shape"]:
        raise ValueError(f"its network takes images of {image_shape}, not of {preprocessing.get('image_shape')}")
    class_names = check_class_names(metadata.get("class_names"))
    if network.get("num_classes") != num_logits(class_names):
        raise ValueError(f"its network has {network.get('num_classes')} logits for {len(class_names)} classes")
    if metadata.get("normalize") not in NORMALIZATIONS:
        raise ValueError("its kind of normalization is unknown")
    return image_shape, class_names


def _build(config: dict[str, Any]) -> Network:
    """Builds the network; the whitelist replaces the one of train.py, which allows more."""
    only_networks = execution_whitelist(network_classes(), reset=True)
    return instantiate(config, _convert_="all", _execution_whitelist_=only_networks)

"""From a checkpoint to a Predictor."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hydra.utils import execution_whitelist, instantiate
from torch import Tensor

from imgclf.checkpoints.files import METADATA_KEY, read_checkpoint
from imgclf.checkpoints.meta_device import unsaved_tensors, weights_on_meta
from imgclf.checkpoints.metadata import network_classes
from imgclf.checkpoints.untrusted import check_class_names, check_config, check_image_shape, check_weights
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import NORMALIZATIONS, Classifier, num_logits
from imgclf.models.network import Network

SPARE_PARAMETERS = 100  # a network may replace a few layers while it is built
MAX_UNSAVED_BYTES = 2**28  # of tensors that a network computes when it is built and does not keep in its state_dict


def load(path: str | Path, device: str | torch.device = "cpu") -> Predictor:
    """Rebuilds a trained classifier from its checkpoint alone.

    The file may come from a stranger: it can only name networks of imgclf, and it costs about as much memory as it has
    bytes, whatever sizes it declares.

    Args:
        path: a .ckpt file of a run.
        device: where the network runs, such as "cpu" or "cuda".

    Returns:
        A Predictor whose ``metadata`` and ``epoch`` come from the file.

    Raises:
        FileNotFoundError, ValueError: as ``read_checkpoint`` does.
        ValueError: the file names another class than a network of imgclf, or its parts do not fit together.

    Example:
        >>> predictor = load("outputs/mnist/run/checkpoints/best.ckpt")
        >>> predictor.predict("seven.png")
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
    config, preprocessing = metadata["network"], metadata["preprocessing"]
    check_weights(weights, image_shape[0], file_bytes)
    # A loss may keep the weights of the classes in the state_dict; predictions do not need them.
    weights = {name: value for name, value in weights.items() if not name.startswith("loss.")}
    statistics = {name: weights[name].flatten().tolist() for name in ("mean", "std")}
    with weights_on_meta(max_parameters=len(weights) + SPARE_PARAMETERS):
        network = _instantiate(config)
    _check_fit(network, weights)
    if others := unsaved_tensors(network):
        if sum(tensor.nbytes for tensor in others) > MAX_UNSAVED_BYTES:
            raise ValueError(f"its network computes tensors of more than {MAX_UNSAVED_BYTES} bytes when it is built")
        network = _instantiate(config)  # with memory: it is no larger than the file, as was just checked
    classifier = Classifier(network, class_names, **statistics, normalize=metadata["normalize"])
    own = classifier.state_dict()
    weights = {name: value.to(own[name].dtype) if name in own else value for name, value in weights.items()}
    classifier.load_state_dict(weights, assign=True)
    classifier.network.to(memory_format=torch.channels_last)
    return Predictor(
        classifier,
        image_shape,
        reader=preprocessing.get("reader"),
        polarity=preprocessing.get("polarity"),
        metadata=metadata,
        epoch=epoch + 1 if isinstance(epoch, int) else None,
    )


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


def _instantiate(config: dict[str, Any]) -> Network:
    """Builds the network; the whitelist replaces the one of train.py, which allows more."""
    only_networks = execution_whitelist(network_classes(), reset=True)
    return instantiate(config, _convert_="all", _execution_whitelist_=only_networks)


def _check_fit(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Raises ValueError unless the file holds a tensor of the right shape and kind for every one of the network."""
    for name, own in network.state_dict(prefix="network.").items():
        given = weights.get(name)
        if given is None:
            raise ValueError(f"its weights have no {name}, which its network needs")
        if given.shape != own.shape:
            raise ValueError(f"{name} has shape {tuple(given.shape)}, but its network needs {tuple(own.shape)}")
        if not torch.can_cast(given.dtype, own.dtype):
            raise ValueError(f"{name} is of type {given.dtype}, but its network needs {own.dtype}")

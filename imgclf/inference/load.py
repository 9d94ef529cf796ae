"""Self-contained checkpoints: written whole or not at all, read without executing anything of theirs."""

import os
from pathlib import Path

import torch
from hydra.errors import InstantiationException
from hydra.utils import execution_whitelist, instantiate

from imgclf.checkpoints.files import METADATA_KEY, read_checkpoint
from imgclf.checkpoints.metadata import FILES, PAPER, network_classes
from imgclf.checkpoints.untrusted import (
    Budget,
    check_configuration,
    check_tensors,
    class_names,
    image_shape,
)


def load(path: str | Path, device: str | torch.device = "cpu"):
    """Rebuilds a trained classifier from its checkpoint alone.

    Args:
        path: a .ckpt file of a run.
        device: where to put it, such as "cpu" or "cuda".

    Returns:
        imgclf.inference.predictor.Predictor

    Raises:
        FileNotFoundError, ValueError: as ``read`` does; and for a network that is not one of imgclf's own.
    """
    from imgclf.inference.predictor import Predictor
    from imgclf.models.classifier import NORMALIZATIONS, Classifier, num_logits

    checkpoint = read_checkpoint(path)
    card, weights = checkpoint[METADATA_KEY], checkpoint["state_dict"]
    config, data = card.get("network"), card.get("data") or {}
    check_configuration(config, path)
    check_configuration(data, path)
    if config.get("weights"):
        raise ValueError(f"ckpt={path}: refused: its network would fetch weights ({config['weights']})")
    try:
        shape, names = image_shape(config["image_shape"]), class_names(card["class_names"])
        if config["num_classes"] != num_logits(names) or card["normalize"] not in NORMALIZATIONS:
            raise ValueError(f"{len(names)} classes, {config['num_classes']} logits, or unknown normalize")
        check_tensors(weights, shape[0])
        with Budget(os.path.getsize(path)):
            only = execution_whitelist(network_classes(), reset=True)  # not what train.py may instantiate besides
            network = instantiate(config, _convert_="all", _execution_whitelist_=only)
        statistics = (weights[name].flatten() for name in ("mean", "std"))
        classifier = Classifier(network, names, *statistics, normalize=card["normalize"])
        for name, own in classifier.state_dict().items():
            if not torch.can_cast(weights[name].dtype, own.dtype):
                raise ValueError(f"{name} is of {weights[name].dtype}")
        classifier.load_state_dict(weights)
    except InstantiationException as error:
        raise ValueError(f"ckpt={path}: refused: {' '.join(str(error).split())}") from error
    except Exception as error:  # networks raise anything when their arguments are nonsense
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"ckpt={path}: its description and its weights do not fit together ({reason})") from error
    paper, files = str(data.get("variation")).endswith(PAPER), data.get("_target_") == FILES
    return Predictor(classifier.to(device), shape, dark_ink=paper, scaled=files)

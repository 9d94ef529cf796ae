"""Where in an image a network finds its evidence."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from imgclf.figures.classification import plot_heat_maps
from imgclf.inference.predictor import Predictor

PER_OUTCOME = 6  # images


def grad_cam(predictor: Predictor, images: Tensor, classes: Tensor) -> Tensor | None:
    """Grad-CAM (Selvaraju et al. 2017, by captum) at the last layer that still has a height and a width.

    Args:
        predictor: with a network that is convolutional, or has such layers.
        images: uint8 (N, C, H, W).
        classes: int64 (N,), whose evidence is sought.

    Returns:
        float32 (N, H, W) in [0, 1], each image's largest value 1, or 0 where there is no evidence; None if the network
        has no such layer.
    """
    from captum.attr import LayerGradCam

    classifier = predictor.classifier
    example = torch.zeros(1, *predictor.image_shape, device=classifier.device)
    layer = _last_spatial_layer(classifier.network, example)
    if layer is None:
        return None
    cam = LayerGradCam(classifier, layer)
    maps = []
    for chunk, target in zip(images.split(predictor.batch_size), classes.split(predictor.batch_size), strict=True):
        inputs = (chunk.to(classifier.device).float() / 255).requires_grad_()
        found = cam.attribute(inputs, target.to(classifier.device), relu_attributions=True)
        maps.append(found.detach().cpu())  # pyrefly: ignore[missing-attribute]
    heat = F.interpolate(torch.cat(maps), images.shape[2:], mode="bilinear")[:, 0]
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)


def explanations(evaluation, predictor: Predictor) -> dict[str, Figure]:
    """The figure "grad_cam": some images of each outcome with their evidence; empty if the network has no place for it.

    Of two classes the evidence is the positive one's, else the predicted class's.
    """
    e, names = evaluation, predictor.class_names
    right = e.predicted == e.labels
    outcomes = {"right": right, "wrong": ~right}
    if len(names) == 2:
        positive = e.labels == 1
        outcomes = {
            f"{names[1]} found": positive & right,
            f"{names[1]} missed": positive & ~right,
            f"{names[0]} taken for {names[1]}": ~positive & ~right,
            f"{names[0]} recognised": ~positive & right,
        }
    groups = {name: mask.nonzero().flatten() for name, mask in outcomes.items() if mask.any()}
    # Spread over the split: neighbours in it may be one patient's.
    chosen = {name: rows[:: max(1, len(rows) // PER_OUTCOME)][:PER_OUTCOME] for name, rows in groups.items()}
    rows = torch.cat(list(chosen.values()))
    sought = torch.ones_like(rows) if len(names) == 2 else e.predicted[rows]
    images = e.images[rows][0]
    heat = grad_cam(predictor, images, sought)
    if heat is None:
        return {}
    shares = e.probabilities[rows, sought].tolist()
    captions = [f"{names[label]} {100 * share:.0f}%" for label, share in zip(sought.tolist(), shares, strict=True)]
    lengths = {name: len(members) for name, members in chosen.items()}
    return {"grad_cam": plot_heat_maps(images, heat, captions, lengths, "Grad-CAM: where the evidence is")}


def _last_spatial_layer(network: nn.Module, example: Tensor) -> nn.Module | None:
    found: list[nn.Module] = []

    def look(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            found.append(module)

    hooks = [module.register_forward_hook(look) for module in network.modules()]
    with torch.inference_mode():
        network(example)
    for hook in hooks:
        hook.remove()
    return found[-1] if found else None

"""Where in an image a network finds its evidence."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgclf.inference.predictor import Predictor


def grad_cam(predictor: Predictor, images: Tensor, classes: Tensor) -> Tensor | None:
    """Grad-CAM (Selvaraju et al. 2017), computed by captum at the last layer whose output has a height and a width.

    Args:
        predictor: its first network is explained.
        images: uint8 (N, C, H, W).
        classes: int64 (N,), the class of each image for which evidence is sought.

    Returns:
        float32 (N, H, W) in [0, 1]: each image's largest value is 1, or 0 where there is no evidence. None if the
        network has no such layer.

    Example:
        >>> heat = grad_cam(load("best.ckpt"), images, torch.tensor([7]))
    """
    from captum.attr import LayerGradCam  # lazy: captum takes a second to import, and not every evaluation needs it

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


def _last_spatial_layer(network: nn.Module, example: Tensor) -> nn.Module | None:
    found: list[nn.Module] = []

    def keep_if_spatial(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            found.append(module)

    hooks = [module.register_forward_hook(keep_if_spatial) for module in network.modules()]
    with torch.inference_mode():
        network(example)
    for hook in hooks:
        hook.remove()
    return found[-1] if found else None

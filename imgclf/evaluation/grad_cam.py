"""Shows where in an image a network finds its evidence."""

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from imgclf.evaluation.evaluate import Evaluation
from imgclf.figures.classification import plot_heat_maps
from imgclf.figures.style import shown_names, wrap_caption
from imgclf.inference.predictor import Predictor

PER_OUTCOME = 6  # images in the figure


def grad_cam(predictor: Predictor, images: Tensor, classes: Tensor) -> Tensor | None:
    """Grad-CAM (Selvaraju et al. 2017), computed by captum at the last layer whose output has a height and a width.

    The predictor's first network is explained for images, uint8 (N, C, H, W), and the class, int64 (N,), whose evidence
    is sought in each: evidence for it against the mean of all classes, because a softmax sees no other.

    Returns:
        float32 (N, H, W) in [0, 1]: each image's largest value is 1, or 0 where there is no evidence. None if the
        network has no such layer.
    """
    from captum.attr import LayerGradCam  # lazy: captum takes a second to import, and not every evaluation needs it

    classifier, device = predictor.classifier, predictor.classifier.device
    layer = _last_spatial_layer(classifier.network, torch.zeros(1, *predictor.image_shape, device=device))
    if layer is None:
        return None

    def centred_logits(inputs: Tensor) -> Tensor:
        logits = classifier(inputs)
        return logits - logits.mean(1, keepdim=True)

    cam = LayerGradCam(centred_logits, layer)
    maps = []
    for chunk, target in zip(images.split(predictor.batch_size), classes.split(predictor.batch_size), strict=True):
        inputs = (chunk.to(device).float() / 255).requires_grad_()
        found = cam.attribute(inputs, target.to(device), relu_attributions=True)
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


def plot_explanations(evaluation: Evaluation, predictor: Predictor) -> Figure | None:
    """Shows some images of each outcome under their ``grad_cam``; None if the network has no layer for it.

    The evidence is that for the predicted class. For two classes it is always that for the positive class.
    """
    chosen = {}
    for title, mask in _outcomes(evaluation, predictor.class_names).items():
        members = mask.nonzero().flatten()
        if len(members):  # taken from all over the split, because neighbours in it may be one patient's
            chosen[title] = members[:: max(1, len(members) // PER_OUTCOME)][:PER_OUTCOME]
    rows = torch.cat(list(chosen.values()))
    binary = evaluation.num_classes == 2
    classes = torch.ones_like(rows) if binary else evaluation.predicted[rows]
    images, _ = evaluation.images[rows]
    heat = grad_cam(predictor, images, classes)
    if heat is None:
        return None
    names, truth = shown_names(predictor.class_names), evaluation.labels[rows].tolist()
    answers = zip(truth, classes.tolist(), evaluation.probabilities[rows, classes].tolist(), strict=True)
    captions = []
    for true, label, share in answers:
        shown = f"{names[label]} {share:.0%}"
        captions.append(wrap_caption(shown if binary or label == true else f"{names[true]} → {shown}"))
    counts = {title: len(members) for title, members in chosen.items()}
    return plot_heat_maps(images, heat, captions, counts, f"Grad-CAM, {evaluation.split} images: where the evidence is")


def _outcomes(evaluation: Evaluation, names: list[str]) -> dict[str, Tensor]:
    """The title of each outcome to a mask of its images, bool (N,)."""
    right = evaluation.predicted == evaluation.labels
    if evaluation.num_classes != 2:
        return {"right": right, "wrong": ~right}
    negative_name, positive_name = names
    positive = evaluation.labels == 1
    return {
        f"{positive_name} found": positive & right,
        f"{positive_name} missed": positive & ~right,
        f"{negative_name} taken for {positive_name}": ~positive & ~right,
        f"{negative_name} recognised": ~positive & right,
    }

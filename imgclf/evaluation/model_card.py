"""A model card (Mitchell et al. 2019): what a network is for and what it is worth, as far as the data tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from imgclf.core.text import printable
from imgclf.data.datamodule import ImageDataModule
from imgclf.evaluation.evaluate import Evaluation
from imgclf.inference.predictor import Predictor

FEW_IMAGES = 30  # of a class: its figures are coarse
NAMED = 12  # classes that a sentence names
CHANNELS = {1: "grey", 3: "colour"}


def model_facts(
    predictor: Predictor, evaluations: Sequence[Evaluation], data: ImageDataModule | None = None
) -> dict[str, Any]:
    """What model_card.json holds, in plain types.

    Args:
        predictor: the network.
        evaluations: of one or several splits.
        data: the data that the network was trained on, where these are at hand.

    Returns:
        "class_names", "image_shape", "network", "parameters", "threshold" (null unless there are two classes),
        "trained_on" (the arguments of the data module), "images" (for each split, how many each class has) and "groups"
        (for each split whose patients, writers or scenes are known, how many there are).
    """
    classes = len(predictor.class_names)
    labels = {split: data.dataset(split).targets for split in ("train", "val")} if data else {}
    labels |= {evaluation.split: evaluation.labels for evaluation in evaluations}
    groups = {split: data.groups(split) for split in labels if data}
    groups |= {evaluation.split: evaluation.groups or () for evaluation in evaluations}
    networks = [one.network for one in predictor.classifiers]
    return {
        "class_names": [printable(name) for name in predictor.class_names],
        "image_shape": list(predictor.image_shape),
        "network": " + ".join(type(network).__name__ for network in networks),
        "parameters": sum(weights.numel() for network in networks for weights in network.parameters()),
        "threshold": predictor.threshold if classes == 2 else None,
        "trained_on": predictor.metadata.get("data"),
        "images": {split: given.bincount(minlength=classes).tolist() for split, given in labels.items()},
        "groups": {split: len({*given} - {None}) for split, given in groups.items() if any(given)},
    }


def intended_use(facts: Mapping[str, Any], trained_here: bool) -> list[str]:
    """Sentences on what the network is for. ``trained_here``: "images" has the images that it was trained on."""
    names, (channels, height, width) = facts["class_names"], facts["image_shape"]
    kind = CHANNELS.get(channels, f"{channels}-channel")
    sentences = [f"It tells {len(names)} classes apart: {_listed(names)}."]
    sentences.append(f"It sees an image as {width} by {height} {kind} pixels.")
    if trained_here:
        count = sum(facts["images"]["train"])
        sentences.append(f"It learned from {count:,} images, and is meant for images that were made in the same way.")
    else:
        sentences.append("It is meant for images that were made in the same way as those that it learned from.")
    if facts["threshold"] is not None:
        sentences.append(f"It answers {names[1]} from a probability of {facts['threshold']:.4f} on, else {names[0]}.")
    return sentences


def limits(
    facts: Mapping[str, Any],
    split: str,
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float | None]],
    per_class: Sequence[Mapping[str, str]],
) -> list[str]:
    """Sentences on what the answers are worth.

    Args:
        facts: as ``model_facts`` gives them.
        split: the split that the figures are of.
        metrics: the content of metrics.json.
        intervals: the content of intervals.json.
        per_class: the rows of per_class.csv for the split.
    """
    names, counts = facts["class_names"], facts["images"]
    total, accuracy = sum(counts[split]), metrics[f"{split}/accuracy"]
    sentences = []
    if accuracy is not None:
        low, high = intervals.get(f"{split}/accuracy", (None, None))
        interval = "" if low is None or high is None else f" (95% interval {low:.1%} to {high:.1%})"
        sentences.append(f"{accuracy:.1%} of {total:,} {split} images were classified rightly{interval}.")
        if accuracy == 1 and total:
            sentences.append(f"No mistake in {total:,} images still allows an error rate of {min(1, 3 / total):.1%}.")
    if split == "val":
        sentences.append("Training chose its epoch on these validation images: new images will do a little worse.")
    if split == "train":
        sentences.append("These are the images that it learned from: new images will do worse.")
    defined = [row for row in per_class if row["recall"]]
    if len(defined) > 1:
        worst = min(defined, key=lambda row: float(row["recall"]))
        found = f"{float(worst['recall']):.1%} of its {int(worst['images']):,} images were found"
        sentences.append(f"The class that it misses most often is {printable(worst['class'])}: {found}.")
    learned = counts.get("train")
    if unseen := [name for name, count in zip(names, learned or (), strict=False) if not count]:
        sentences.append(f"It has never seen an image of {_listed(unseen)}.")
    if absent := [name for name, count in zip(names, counts[split], strict=True) if not count]:
        sentences.append(f"There was no {split} image of {_listed(absent)}: how it does on them is unknown.")
    if few := [name for name, count in zip(names, counts[split], strict=True) if 0 < count < FEW_IMAGES]:
        sentences.append(f"Fewer than {FEW_IMAGES} {split} images are of {_listed(few)}: their figures are coarse.")
    sentences.append("It knows no other class: whatever an image shows, it answers one of these.")
    sentences.append("Images of other sources, such as other devices, places or people, were not measured.")
    return sentences


def _listed(names: Sequence[str]) -> str:
    """Some names in words, with how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more:,} more" if more > 0 else "")

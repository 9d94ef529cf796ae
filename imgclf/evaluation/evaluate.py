"""Evaluates a predictor on a split. The end of training and evaluate.py both use this one function."""

import copy
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from imgclf.core.metrics import accuracy_by_coverage, classification_metrics, decide, many_class_metrics
from imgclf.core.names import COVERAGES
from imgclf.core.text import some_names
from imgclf.core.validation import checked
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import ImageDataset
from imgclf.inference.predictor import Predictor
from imgclf.transforms.corruptions import Corruption, Severity, corrupt

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A split with a predictor's answers to it."""

    split: str
    images: ImageDataset  # the N images that the network saw
    labels: Tensor  # the true classes, int64 (N,)
    losses: Tensor  # the cross-entropy of each image, float32 (N,)
    probabilities: Tensor  # float32 (N, classes)
    threshold: float  # for two classes, the probability from which the second is predicted
    names: list[str]  # what each image is called: a file's path, or the image's index in the split
    groups: Sequence[str | None] | None = None  # the patient, writer or scene of each image, where it is known

    @property
    def num_classes(self) -> int:
        return self.probabilities.shape[1]

    @cached_property
    def predicted(self) -> Tensor:
        """The predicted classes, int64 (N,)."""
        return decide(self.probabilities, self.threshold)

    @property
    def confidence(self) -> Tensor:
        """The probability of each predicted class, float32 (N,)."""
        return self.probabilities.gather(1, self.predicted[:, None])[:, 0]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The name of every metric, such as "test/accuracy", to its value; the loss comes first.

        "test/accuracy_at_80" is the accuracy of the most confident 80% of the answers.
        """
        values = self.metrics_of(torch.arange(len(self.labels)))
        if self.num_classes > 2:
            more = many_class_metrics(self.probabilities, self.labels)
            values |= {f"{self.split}/{name}": value for name, value in more.items()}
        by_coverage = accuracy_by_coverage(self.predicted == self.labels, self.confidence)
        for percent in COVERAGES:
            kept = max(1, round(len(by_coverage) * percent / 100))
            values[f"{self.split}/accuracy_at_{percent}"] = by_coverage[kept - 1]
        return {name: float(value) for name, value in values.items()}

    def metrics_of(self, rows: Tensor) -> dict[str, Tensor]:
        """Computes ``metrics`` for the images with these indices, int64. An index that occurs twice counts twice.

        ``MANY_CLASS_METRICS`` are left out: sorting the scores of every class takes too long for a thousand resamples.
        """
        scores = self.probabilities[rows, 1] if self.num_classes == 2 else None
        values = classification_metrics(self.predicted[rows], self.labels[rows], self.num_classes, scores)
        return {f"{self.split}/{name}": value for name, value in {"loss": self.losses[rows].mean(), **values}.items()}

    def confusion_matrix(self) -> Tensor:
        """Counts, int64 (classes, classes): a row for each true class, a column for each predicted class."""
        return multiclass_confusion_matrix(self.predicted, self.labels, self.num_classes, validate_args=False)


@checked
def evaluate(
    predictor: Predictor,
    data: ImageDataModule,
    split: str,
    class_map: dict[str, str] | None = None,
    corruption: Corruption | None = None,
    severity: Severity = 3,
) -> Evaluation:
    """Evaluates a predictor on the split "train", "val" or "test" of data, without augmentation.

    The data may lack some of the checkpoint's classes; ``match_classes`` finds the others. With a ``corruption`` the
    images are corrupted first (see ``imgclf.transforms.corruptions``).

    Raises:
        ValueError: the corruption is unknown, the images have another shape than the checkpoint's, or a class is none
            of the checkpoint's.

    Example:
        >>> evaluate(load("best.ckpt"), Digits(), "test").metrics["test/accuracy"]
    """
    indices = torch.tensor(match_classes(data.class_names, predictor.class_names, class_map))
    images = copy.copy(data.eval_dataset(split))
    images.labels = indices[images.labels]
    if corruption:
        images = ImageDataset(corrupt(images[:][0], corruption, severity), images.targets)
        logits = predictor.logits(images.images)
    else:
        logits = torch.cat([predictor.logits(batch) for batch, _ in data.eval_dataloader(split)])
    return Evaluation(
        split=split,
        images=images,
        labels=images.targets,
        losses=F.cross_entropy(logits, images.targets, reduction="none"),
        probabilities=logits.softmax(1),
        threshold=predictor.threshold,
        names=data.image_names(split),
        groups=data.groups(split),
    )


def match_classes(
    data_names: Sequence[str], known_names: Sequence[str], class_map: Mapping[str, str] | None = None
) -> list[int]:
    """The index in ``known_names`` of each class of the data, found by name; case, spaces, _ and - do not count.

    Args:
        data_names: the classes of the data.
        known_names: the classes of the checkpoint.
        class_map: for some classes of the data, which class of the checkpoint each is.

    Raises:
        ValueError: a class matches none, or several, of the checkpoint's, two match the same one without
            ``class_map``, or ``class_map`` names classes that do not exist.

    Example:
        >>> match_classes(["pneumonia", "Normal"], ["NORMAL", "PNEUMONIA"])
        [1, 0]
    """
    by_hand = {str(name): str(known) for name, known in (class_map or {}).items()}
    data_classes, known_classes = some_names(data_names), some_names(known_names)
    for name, known in by_hand.items():
        if name not in data_names or known not in known_names:
            raise ValueError(
                f"class_map={{{name}: {known}}}: it maps a class of the data ({data_classes}) to one of the checkpoint "
                f"({known_classes})"
            )
    plain_names = [_plain(name) for name in known_names]
    found, unmatched = {}, []
    for name in data_names:
        known = by_hand.get(name, name)
        if known in known_names:
            found[name] = known_names.index(known)
        elif plain_names.count(_plain(known)) == 1:
            found[name] = plain_names.index(_plain(known))
        else:
            unmatched.append(name)
    alike = [name for name in found if name not in by_hand and [*found.values()].count(found[name]) > 1]
    if faulty := unmatched or alike:
        why = "are none" if unmatched else "are the same class"
        raise ValueError(
            f"{len(faulty)} of the data's {len(data_names)} classes ({some_names(faulty)}) {why} of the checkpoint's "
            f"{len(known_names)} ({known_classes}): class_map={{{faulty[0]}: NAME}} maps a class by hand"
        )
    if different := [f"{name} as {known_names[i]}" for name, i in found.items() if name != known_names[i]]:
        log.info("classes of the data are taken for those of the checkpoint: %s", some_names(different))
    return [found[name] for name in data_names]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())

"""Shared by the tests that train a Classifier as a notebook does, without Hydra."""

import lightning.pytorch as pl
import torch

from imgclf.data.digits import Digits
from imgclf.models.classifier import Classifier
from imgclf.models.mlp import MLP


class TwoDigits(Digits):
    """Two classes: digits below 5, and digits from 5 on."""

    class_names = ("small", "large")

    def load(self, split):
        images, labels = super().load(split)
        return images, (labels >= 5).long()


def fit(classifier: Classifier, epochs: int = 1, data: pl.LightningDataModule | None = None, **options) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(classifier, datamodule=data or Digits(batch_size=100))
    return trainer


def ten_classes(**options) -> Classifier:
    return Classifier(MLP(hidden=[16]), Digits.class_names, [0.1], [0.3], **options)


def two_classes(**options) -> Classifier:
    return Classifier(MLP(hidden=[16], num_classes=1), TwoDigits.class_names, [0.1], [0.3], **options)


def fit_two_classes(**options) -> tuple[pl.Trainer, Classifier]:
    torch.manual_seed(0)
    model = two_classes(**options)
    return fit(model, data=TwoDigits(batch_size=100)), model

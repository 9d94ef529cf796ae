"""scikit-learn's bundled handwritten digits, which need no download."""

from typing import Any

import torch
from torch import Tensor

from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import fit_in_box

TEST_FRACTION = 0.2


class Digits(ImageDataModule):
    """1,797 digits of 43 people (UCI "Optical Recognition of Handwritten Digits", the part scikit-learn bundles).

    8x8 pixels with 17 grey levels, scaled to a 20x20 box on 28x28 as in MNIST. The set has no official test part:
    a fixed, stratified fifth (360 digits) is it.
    """

    class_names = tuple(str(digit) for digit in range(10))

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        bunch: Any = load_digits()
        rows = range(len(bunch.target))
        train, test = train_test_split(rows, test_size=TEST_FRACTION, stratify=bunch.target, random_state=0)
        rows = train if split == "train" else test
        small = torch.from_numpy(bunch.images[rows]).mul_(255 / 16).round_().to(torch.uint8)
        return fit_in_box(small[:, None]), torch.from_numpy(bunch.target[rows]).long()

"""scikit-learn's bundled handwritten digits, which need no download."""

from typing import Any

import torch
from torch import Tensor

from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import fit_in_box


class Digits(ImageDataModule):
    """1,797 digits of 43 people (UCI "Optical Recognition of Handwritten Digits", the part scikit-learn bundles).

    The images have 8x8 pixels with 17 grey levels. They are scaled to a 20x20 box on 28x28 pixels, as MNIST's digits
    are. The set has no official test part, so a fixed, stratified fifth (360 digits) is held out for testing.
    """

    class_names = tuple(str(digit) for digit in range(10))

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        from sklearn.datasets import load_digits  # lazy: scikit-learn takes a second to import
        from sklearn.model_selection import train_test_split

        digits: Any = load_digits()
        rows = range(len(digits.target))
        train_rows, test_rows = train_test_split(rows, test_size=0.2, stratify=digits.target, random_state=0)
        rows = train_rows if split == "train" else test_rows
        images = torch.from_numpy(digits.images[rows]).mul_(255 / 16).round_().to(torch.uint8)
        return fit_in_box(images[:, None]), torch.from_numpy(digits.target[rows]).long()

import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from imgclf.checkpoints.metadata import datamodule_classes
from imgclf.core.names import SPLITS
from imgclf.data.amat import AmatImages
from imgclf.data.digits import Digits
from imgclf.data.image_folder import ImageFolder
from imgclf.data.noisy import NoisyImages
from imgclf.data.torchvision_data import TorchvisionImages


def numbered(self, split):
    """As many images as MNIST has, no two alike."""
    count, first = (60_000, 0) if split == "train" else (10_000, 60_000)
    numbers = torch.arange(first, first + count)
    pixels = torch.stack([numbers // 256**2, numbers // 256 % 256, numbers % 256, numbers * 0], 1)
    return pixels.to(torch.uint8).view(-1, 1, 2, 2), numbers % 10


MODULES = {
    "digits": (Digits, {}),
    "amat": (AmatImages, {"train": "train.amat", "test": "test.amat"}),
    "torchvision": (TorchvisionImages, {}),
    "noisy digits": (NoisyImages, {"base": "digits"}),
    "noisy": (NoisyImages, {"variation": "back-rand"}),
    "larochelle": (NoisyImages, {"variation": "rot", "protocol": "larochelle"}),
    "folder": (ImageFolder, {"root": "whole"}),
    "folder with groups": (ImageFolder, {"root": "whole", "group_pattern": r"p\d+"}),
    "folder of parts": (ImageFolder, {"root": "parts"}),
    "folder of parts, val joined": (ImageFolder, {"root": "parts", "val_folder": False, "group_pattern": r"p\d+"}),
}


def test_every_data_module_is_among_those_that_are_looked_at():
    known = {f"{kind.__module__}.{kind.__qualname__}" for kind, _ in MODULES.values()}
    assert known == {name for name in datamodule_classes() if name.startswith("imgclf.data.")}


@pytest.mark.parametrize("name", MODULES)
def test_no_image_is_in_two_splits_whatever_the_seeds(name, tmp_path, monkeypatch):
    kind, options = MODULES[name]
    if kind is ImageFolder:
        for part in ("whole", "parts/train", "parts/val", "parts/test"):
            for i in range(40):
                file = tmp_path / part / "ab"[i % 2] / f"p{i // 4}_{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = np.random.default_rng(zlib.crc32(str(file).encode())).integers(0, 256, (4, 4), dtype=np.uint8)
                Image.fromarray(pixels).save(file)
        options = {**options, "data_dir": str(tmp_path), "cache_dir": str(tmp_path / "cache"), "image_size": 4}
    for source in (TorchvisionImages, NoisyImages, AmatImages) if options.get("base") != "digits" else ():
        monkeypatch.setattr(source, "load", numbered)
    tests = set()
    divisions = [{"val_fraction": 0.1}, {"val_fraction": 0.3, "seed": 1}, {"val_fraction": 0.3, "split_seed": 1}]
    divisions += [{"val_fraction": 0.5, "seed": 2, "split_seed": 7}]
    if options.get("protocol") != "larochelle":
        divisions += [{"folds": 3, "fold": fold} for fold in range(3) if kind is not AmatImages]
    validated = {}
    for division in divisions:
        data = kind(**options, **division, batch_size=2)
        parts = [set(data.dataset(split).digests()) for split in SPLITS]
        assert all(parts)
        assert len(set.union(*parts)) == sum(map(len, parts)) == sum(len(data.dataset(split)) for split in SPLITS)
        tests.add(frozenset(parts[2]))
        if data.folds:
            assert not validated.keys() & set(data.image_names("val"))  # by which all folds know an image
            validated |= dict(zip(data.image_names("val"), data.dataset("val").digests(), strict=True))
            total = parts[0] | parts[1]
    if validated:
        assert set(validated.values()) == total
    assert len(tests) == 1  # the test images are the same for all

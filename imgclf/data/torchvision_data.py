"""MNIST and the data sets that torchvision reads like it."""

import hashlib
import logging
from pathlib import Path

import torch
from torch import Tensor

from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import fit_in_box
from imgclf.data.idx_files import FETCH, idx_header, read_idx

log = logging.getLogger(__name__)

SETS = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST", "USPS")
# SHA-256 of the published files. torchvision knows those of the archives they come in, and looks when it downloads.
PUBLISHED = {
    "MNIST": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "FashionMNIST": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
}


class TorchvisionImages(ImageDataModule):
    """A small grey data set of torchvision: official train and test parts, 28x28.

    MNIST (LeCun et al. 1998), Fashion-MNIST (Xiao et al. 2017), KMNIST (Clanuwat et al. 2018), QMNIST with its
    60,000 test images (Yadav and Bottou 2019), EMNIST (Cohen et al. 2017), turned upright, and USPS (Hull 1994),
    scaled from 16x16 to MNIST's 20x20 box.

    Args:
        dataset: the class in torchvision.datasets, one of ``SETS``.
        data_dir: torchvision's root folder; missing files are downloaded there.
        emnist_split: which EMNIST: "balanced", "letters", "digits", "mnist", "byclass" or "bymerge".
        options: of ImageDataModule.

    Raises:
        ValueError: unknown name, or a damaged file.
        FileNotFoundError: files are missing and cannot be downloaded.
    """

    def __init__(
        self, dataset: str = "MNIST", data_dir: str = "data", emnist_split: str = "balanced", **options
    ) -> None:
        if dataset not in SETS:
            raise ValueError(f"data.dataset={dataset}: choose one of {', '.join(SETS)}")
        super().__init__(**options)
        self.source, self.data_dir, self.emnist_split = dataset, Path(data_dir).expanduser(), emnist_split

    @property
    def class_names(self) -> list[str]:  # pyrefly: ignore[bad-override]
        import torchvision.datasets

        source = getattr(torchvision.datasets, self.source)
        if self.source == "USPS":
            return [str(digit) for digit in range(10)]
        names = source.classes_split_dict[self.emnist_split] if self.source == "EMNIST" else source.classes
        return [name.split(" - ")[0] for name in names if name != "N/A"]

    def files(self, split: str) -> list[Path]:
        """The files that hold a split, images first."""
        train = split == "train"
        if self.source == "USPS":
            return [self.data_dir / ("usps.bz2" if train else "usps.t.bz2")]
        labels = "labels-idx1-ubyte"
        if self.source == "EMNIST":
            stem = f"emnist-{self.emnist_split}-{split}"
        elif self.source == "QMNIST":
            stem, labels = f"qmnist-{split}", "labels-idx2-int"
        else:
            stem = "train" if train else "t10k"
        folder = self.data_dir / self.source / "raw"
        return [folder / f"{stem}-images-idx3-ubyte", folder / f"{stem}-{labels}"]

    def prepare_data(self) -> None:
        missing = [file for split in ("train", "test") for file in self.files(split) if not file.exists()]
        if missing:
            try:
                self._open("train", download=True)
                self._open("test", download=True)
            except (OSError, RuntimeError) as error:
                cause = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
                raise FileNotFoundError(
                    f"{self.source} is not in {self.data_dir} and cannot be downloaded ({cause}); put "
                    f"{', '.join(file.name for file in missing)} into {missing[0].parent}, or set IMGCLF_DATA_DIR "
                    "(or data_dir=) to where they are; data=noisy_digits runs offline"
                ) from error
        for name, expected in PUBLISHED.get(self.source, {}).items():
            file = self.data_dir / self.source / "raw" / name
            (count, *_), official = idx_header(file)[1], 60_000 if name.startswith("train") else 10_000
            if count != official:  # somebody's own, such as a small part for tests
                log.warning("%s: not the %s that was published, %d of %d", file, self.source, count, official)
                continue
            with file.open("rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest() != expected:
                    raise ValueError(f"{file}: damaged, not the file as it was published; {FETCH}")

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        where = ", ".join(map(str, self.files(split)))
        if self.source == "USPS":
            try:
                source = self._open(split)
            except Exception as error:  # torchvision fails in many ways on bytes that are not what it expects
                raise ValueError(f"{where}: damaged ({' '.join(str(error).split())}); {FETCH}") from error
            images, labels = fit_in_box(torch.from_numpy(source.data)[:, None]), torch.tensor(source.targets)
        else:
            images, labels = map(read_idx, self.files(split))
            if images.ndim != 3 or images.dtype != torch.uint8 or labels.ndim != (2 if self.source == "QMNIST" else 1):
                raise ValueError(f"{where}: damaged, not images and labels; {FETCH}")
            images, labels = images[:, None], labels.long()
        if self.source == "QMNIST":
            labels = labels[:, 0]  # the other columns say who wrote it
        elif self.source == "EMNIST":
            images = images.transpose(2, 3)  # stored lying on their side
            if self.emnist_split == "letters":
                labels = labels - 1  # counted from 1
        if len(images) != len(labels):
            raise ValueError(f"{where}: {len(images)} images but {len(labels)} labels; delete them to fetch them again")
        count = len(self.class_names)
        if labels.min() < 0 or labels.max() >= count:
            raise ValueError(f"{where}: labels outside 0..{count - 1}; delete them to fetch them again")
        return images.contiguous(), labels

    def _open(self, split: str, download: bool = False):
        import torchvision.datasets

        options = {"split": self.emnist_split} if self.source == "EMNIST" else {}
        source = getattr(torchvision.datasets, self.source)
        return source(self.data_dir, train=split == "train", download=download, **options)

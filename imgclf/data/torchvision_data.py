"""MNIST and its relatives, which torchvision downloads and reads."""

import hashlib
import logging
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from imgclf.core.validation import checked
from imgclf.data.datamodule import ImageDataModule
from imgclf.data.datasets import check_images, fit_in_box

log = logging.getLogger(__name__)

HOW_TO_REPAIR = "delete it and run again to fetch it, or copy a good one there"
# SHA-256 of the published files. torchvision checks the archives that it downloads, but not the files in them.
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
    """A small grey data set of torchvision, in its official train and test parts, with 28x28 pixels.

    MNIST (LeCun et al. 1998), Fashion-MNIST (Xiao et al. 2017), KMNIST (Clanuwat et al. 2018), QMNIST with its
    60,000 test images (Yadav and Bottou 2019), EMNIST (Cohen et al. 2017), turned upright, and USPS (Hull 1994),
    scaled from 16x16 to MNIST's 20x20 box.

    Args:
        dataset: the name of the class in torchvision.datasets.
        data_dir: torchvision's root folder; missing files are downloaded there.
        emnist_split: the part of EMNIST that is used.
        options: arguments of ImageDataModule.

    Example:
        >>> data = TorchvisionImages("FashionMNIST", data_dir="data")
        >>> data.prepare_data()
    """

    @checked
    def __init__(
        self,
        dataset: Literal["MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST", "USPS"] = "MNIST",
        data_dir: str | Path = "data",
        emnist_split: Literal["balanced", "letters", "digits", "mnist", "byclass", "bymerge"] = "balanced",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.source, self.data_dir, self.emnist_split = dataset, Path(data_dir).expanduser(), emnist_split

    @property
    def class_names(self) -> list[str]:  # pyrefly: ignore[bad-override]
        if self.source == "USPS":
            return [str(digit) for digit in range(10)]
        source = self._torchvision_class()
        names = source.classes_split_dict[self.emnist_split] if self.source == "EMNIST" else source.classes
        return [name.split(" - ")[0] for name in names if name != "N/A"]

    def preprocessing(self) -> dict[str, Any]:
        reader = "handwriting" if self.source == "EMNIST" else "auto"  # letters are read like digits
        return {**super().preprocessing(), "reader": reader}

    def files(self, split: str) -> list[Path]:
        """The files that hold a split, images first."""
        if self.source == "USPS":
            return [self.data_dir / ("usps.bz2" if split == "train" else "usps.t.bz2")]
        stems = {"EMNIST": f"emnist-{self.emnist_split}-{split}", "QMNIST": f"qmnist-{split}"}
        stem = stems.get(self.source, "train" if split == "train" else "t10k")
        labels = "labels-idx2-int" if self.source == "QMNIST" else "labels-idx1-ubyte"
        folder = self.data_dir / self.source / "raw"
        return [folder / f"{stem}-images-idx3-ubyte", folder / f"{stem}-{labels}"]

    def prepare_data(self) -> None:
        """Downloads missing files, and checks those whose published content is known."""
        missing = [file for split in ("train", "test") for file in self.files(split) if not file.exists()]
        if missing:
            self._download(missing)
        for name, digest in PUBLISHED.get(self.source, {}).items():
            file = self.data_dir / self.source / "raw" / name
            if hashlib.sha256(file.read_bytes()).hexdigest() == digest:
                continue
            size = len(read_idx(file))
            official_size = 60_000 if name.startswith("train") else 10_000
            if size == official_size:
                raise ValueError(f"{file}: damaged, not the file as it was published; {HOW_TO_REPAIR}")
            # Another size means that the user put other images there on purpose, such as a small part for tests.
            log.warning("%s: not the %s that was published, %d of %d", file, self.source, size, official_size)

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        images, labels = self._load_usps(split) if self.source == "USPS" else self._load_idx(split)
        files = ", ".join(map(str, self.files(split)))
        check_images(images, labels, len(self.class_names), f"{files} (delete them to fetch them again)")
        return images, labels

    def _load_usps(self, split: str) -> tuple[Tensor, Tensor]:
        try:
            source = self._open(split)
        except Exception as error:  # torchvision raises many kinds of errors on a damaged file
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.files(split)[0]}: damaged ({reason}); {HOW_TO_REPAIR}") from error
        return fit_in_box(torch.from_numpy(source.data)[:, None]), torch.tensor(source.targets)

    def _load_idx(self, split: str) -> tuple[Tensor, Tensor]:
        image_file, label_file = self.files(split)
        images = read_idx(image_file, dtype=torch.uint8, ndim=3)[:, None]
        if self.source == "QMNIST":
            labels = read_idx(label_file, dtype=torch.int32, ndim=2)[:, 0]  # the other columns tell who wrote the digit
        else:
            labels = read_idx(label_file, dtype=torch.uint8, ndim=1)
        if self.source == "EMNIST":
            images = images.transpose(2, 3)  # the files store the images lying on their side
            if self.emnist_split == "letters":
                labels = labels.long() - 1  # the files count letters from 1
        return images.contiguous(), labels.long()

    def _download(self, missing: list[Path]) -> None:
        try:
            for split in ("train", "test"):
                self._open(split, download=True)
        except (OSError, RuntimeError) as error:
            cause = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise FileNotFoundError(
                f"{self.source} is not in {self.data_dir} and cannot be downloaded ({cause}); put "
                f"{', '.join(file.name for file in missing)} into {missing[0].parent}, or set IMGCLF_DATA_DIR "
                "(or data_dir=) to the folder that holds them; data=noisy_digits runs offline"
            ) from error

    def _open(self, split: str, download: bool = False) -> Any:
        options = {"split": self.emnist_split} if self.source == "EMNIST" else {}
        return self._torchvision_class()(self.data_dir, train=split == "train", download=download, **options)

    def _torchvision_class(self) -> Any:
        import torchvision.datasets  # lazy: torchvision takes a second to import

        return getattr(torchvision.datasets, self.source)


def read_idx(file: Path, dtype: torch.dtype | None = None, ndim: int | None = None) -> Tensor:
    """Reads an idx file, the format of MNIST; ValueError says that it is damaged, or of another type or shape."""
    from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor  # lazy: as above

    try:
        numbers = read_sn3_pascalvincent_tensor(str(file))
    except FileNotFoundError:
        raise
    except Exception as error:  # torchvision raises many kinds of errors on a damaged file, most of them without words
        raise ValueError(f"{file}: damaged, or not an idx file; {HOW_TO_REPAIR}") from error
    if (dtype or numbers.dtype) != numbers.dtype or (ndim or numbers.ndim) != numbers.ndim or not len(numbers):
        raise ValueError(f"{file}: damaged, it holds {numbers.dtype} {tuple(numbers.shape)}; {HOW_TO_REPAIR}")
    return numbers

"""MNIST and the data sets that torchvision reads like it."""

from pathlib import Path

import torch
from torch import Tensor

from imgclf.data.base import ImageDataModule
from imgclf.data.images import fit_in_box

SETS = ("MNIST", "FashionMNIST", "KMNIST", "QMNIST", "EMNIST", "USPS")


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
        self.dataset, self.data_dir, self.emnist_split = dataset, Path(data_dir).expanduser(), emnist_split

    @property
    def class_names(self) -> list[str]:
        import torchvision.datasets

        source = getattr(torchvision.datasets, self.dataset)
        if self.dataset == "USPS":
            return [str(digit) for digit in range(10)]
        names = source.classes_split_dict[self.emnist_split] if self.dataset == "EMNIST" else source.classes
        return [name.split(" - ")[0] for name in names if name != "N/A"]

    def files(self, split: str) -> list[Path]:
        """The files that hold a split, images first."""
        train = split == "train"
        if self.dataset == "USPS":
            return [self.data_dir / ("usps.bz2" if train else "usps.t.bz2")]
        labels = "labels-idx1-ubyte"
        if self.dataset == "EMNIST":
            stem = f"emnist-{self.emnist_split}-{split}"
        elif self.dataset == "QMNIST":
            stem, labels = f"qmnist-{split}", "labels-idx2-int"
        else:
            stem = "train" if train else "t10k"
        folder = self.data_dir / self.dataset / "raw"
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
                    f"{self.dataset} is not in {self.data_dir} and cannot be downloaded ({cause}); put "
                    f"{', '.join(file.name for file in missing)} into {missing[0].parent}, or set IMGCLF_DATA_DIR "
                    "(or data_dir=) to where they are; data=noisy_digits runs offline"
                ) from error

    def load(self, split: str) -> tuple[Tensor, Tensor]:
        try:
            source = self._open(split)
        except FileNotFoundError:
            raise
        except Exception as error:  # torchvision fails in many ways on bytes that are not what it expects
            raise ValueError(self._fault(split, error)) from error
        images, labels = torch.as_tensor(source.data)[:, None], torch.as_tensor(source.targets).long()
        if self.dataset == "QMNIST":
            labels = labels[:, 0]  # the other columns say who wrote it
        elif self.dataset == "EMNIST":
            images = images.transpose(2, 3)  # stored lying on their side
            if self.emnist_split == "letters":
                labels = labels - 1  # counted from 1
        elif self.dataset == "USPS":
            images = fit_in_box(images)
        where = ", ".join(map(str, self.files(split)))
        if len(images) != len(labels):
            raise ValueError(f"{where}: {len(images)} images but {len(labels)} labels; delete them to fetch them again")
        count = len(self.class_names)
        if labels.min() < 0 or labels.max() >= count:
            raise ValueError(f"{where}: labels outside 0..{count - 1}; delete them to fetch them again")
        return images.contiguous(), labels

    def _open(self, split: str, download: bool = False):
        import torchvision.datasets

        options = {"split": self.emnist_split} if self.dataset == "EMNIST" else {}
        source = getattr(torchvision.datasets, self.dataset)
        return source(self.data_dir, train=split == "train", download=download, **options)

    def _fault(self, split: str, error: Exception) -> str:
        """Which file is damaged and how."""
        from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor

        files = self.files(split)
        if self.dataset != "USPS":
            for file in files:
                try:
                    read_sn3_pascalvincent_tensor(str(file))
                except Exception as fault:
                    files, error = [file], fault
                    break
        reason = " ".join(str(error).split()) or "wrong magic number or size"
        return (
            f"{', '.join(map(str, files))}: damaged or not an idx file ({reason}); delete it and run again to "
            "fetch it, or copy a good one there"
        )

import io

import numpy as np
import pytest
import torch
from PIL import Image

from imgclf.data.datasets import ImageDataset
from imgclf.figures.dataset import plot_dataset, plot_samples
from imgclf.figures.style import encode_png, render

pytestmark = pytest.mark.draws
NAMES = ["a", "b", "a long name", "ü"]


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (50, 1, 8, 8), dtype=np.uint8))
    return ImageDataset(pixels, torch.from_numpy(random.integers(0, 4, 50)))


def test_dataset_counts_every_split_and_class(images):
    few = ImageDataset(images.images, images.labels, torch.arange(10))
    figure = plot_dataset({"train": images, "val": few}, NAMES)
    bars = [patch.get_height() for patch in figure.axes[0].patches]
    assert bars == [split.targets.tolist().count(label) for split in (images, few) for label in range(4)]
    assert encode_png(render(figure))[:4] == b"\x89PNG"


def test_dataset_shows_grey_levels_and_mean_images_of_the_first_split(images):
    figure = plot_dataset({"train": images}, [*NAMES, "empty"])
    (histogram,) = figure.axes[1].patches
    expected, _ = np.histogram(images.images.numpy(), bins=64, range=(0, 256))
    np.testing.assert_allclose(histogram.get_data().values, expected / expected.sum())
    means = [image.get_array() for image in figure.axes[2].images]
    for label, mean in enumerate(means[:4]):
        expected = images.images[images.labels == label].float().mean(0)[0]
        np.testing.assert_allclose(mean, expected, atol=0.5)
    assert not means[4].any()


@pytest.mark.parametrize("count", [0, 1, 10, 73])
def test_samples_of_any_number_in_colour(count):
    images, labels = torch.rand(count, 3, 9, 9), torch.zeros(count, dtype=torch.long)
    figure = plot_samples(images, labels, NAMES, "title")
    assert len(figure.axes[0].images) == min(count, 50)
    pixels = render(figure)
    assert pixels.dtype == np.uint8
    assert pixels.shape[1] > 800
    image = Image.open(io.BytesIO(encode_png(pixels)))
    assert np.array_equal(np.array(image), pixels)


def test_of_many_classes_the_largest_and_the_smallest_are_shown():
    labels = torch.arange(120).repeat_interleave(torch.arange(120) // 10 + 1)
    images = ImageDataset(torch.zeros(len(labels), 1, 4, 4, dtype=torch.uint8), labels)
    figure = plot_dataset({"train": images, "test": images}, [f"name_{i}" for i in range(120)])
    (first, _) = figure.axes[0].lines
    assert first.get_ydata().tolist() == sorted(labels.bincount().tolist(), reverse=True)
    shown = [text.get_text() for text in figure.axes[2].texts]
    assert len(shown) == 24
    assert shown[0] == "name_110"
    assert max(render(figure).shape) < 2000

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_curve, precision_score, recall_score, roc_curve

from imgclf.data.datasets import ImageDataset
from imgclf.evaluation.evaluate import Evaluation
from imgclf.figures.classification import (
    plot_confusion_matrix,
    plot_heat_maps,
    plot_mistakes,
    plot_precision_recall,
    plot_roc,
)
from imgclf.figures.dataset import plot_dataset, plot_samples
from imgclf.figures.learning_curves import plot_learning_curves, plot_metric_over_epochs
from imgclf.figures.style import encode_png, render
from imgclf.figures.sweeps import plot_grid, plot_parallel_coordinates

pytestmark = pytest.mark.draws


@pytest.fixture
def evaluation():
    random = np.random.default_rng(0)
    probabilities = torch.from_numpy(random.dirichlet(np.ones(4), 50)).float()
    labels = torch.from_numpy(random.integers(0, 4, 50))
    images = ImageDataset(torch.from_numpy(random.integers(0, 256, (50, 1, 8, 8), dtype=np.uint8)), labels)
    return Evaluation("test", images, labels, torch.rand(50), probabilities, 0.5, [str(i) for i in range(50)])


NAMES = ["a", "b", "a long name", "ü"]


def texts(figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in (*ax.texts, ax.title)]


def test_confusion_matrix_shows_scikit_learn_s_counts_and_row_shares(evaluation):
    expected = confusion_matrix(evaluation.labels, evaluation.predicted)
    counts = evaluation.confusion_matrix()
    assert counts.tolist() == expected.tolist()
    figure = plot_confusion_matrix(counts, NAMES, "title")
    shown = [text for text in texts(figure) if "%" in text]
    cells = [f"{count:,}\n{100 * count / row.sum():.1f}%" for row in expected for count in row if count]
    assert shown == cells
    assert figure.axes[0].get_xticklabels()[2].get_text() == "a long name"


def test_class_names_are_no_formulas():
    figure = plot_confusion_matrix(torch.eye(2, dtype=torch.int64), ["$\\bad$", "b"], "title")
    assert render(figure).min() < 50


def test_mistakes_are_the_most_confident_errors_in_order(evaluation):
    figure = plot_mistakes(
        evaluation.images, evaluation.labels, evaluation.predicted, evaluation.probabilities, NAMES, "t"
    )
    confidence, predicted = evaluation.probabilities.max(1)
    wrong = sorted((i for i in range(50) if predicted[i] != evaluation.labels[i]), key=lambda i: -confidence[i])
    captions = [text for text in texts(figure) if text]
    assert len(captions) == min(30, len(wrong))
    for caption, i in zip(captions, wrong, strict=False):
        assert caption == f"{NAMES[evaluation.labels[i]]} → {NAMES[predicted[i]]}\n{100 * confidence[i]:.0f}%"


def test_data_counts_every_split_and_class(evaluation):
    few = ImageDataset(evaluation.images.images, evaluation.labels, torch.arange(10))
    figure = plot_dataset({"train": evaluation.images, "val": few}, NAMES)
    bars = [patch.get_height() for patch in figure.axes[0].patches]
    counted = (
        torch.bincount(evaluation.labels, minlength=4).tolist() + torch.bincount(few.targets, minlength=4).tolist()
    )
    assert bars == counted
    assert encode_png(render(figure))[:4] == b"\x89PNG"


def test_curves_mark_the_best_epochs():
    rows = [
        {"epoch": i, "train/loss": 1 / i, "val/loss": abs(i - 2) + 0.5, "train/accuracy": 0.5, "val/accuracy": 0.1 * i}
        for i in range(1, 5)
    ]
    figure = plot_learning_curves(rows)
    assert [ax.get_title() for ax in figure.axes] == [
        "Loss (best validation 0.5000, epoch 2)",
        "Accuracy (best validation 0.4000, epoch 4)",
    ]
    assert figure.axes[0].lines[1].get_ydata().tolist() == [1.5, 0.5, 1.5, 2.5]


@pytest.mark.parametrize("count", [0, 1, 10, 73])
def test_grids_of_any_size_and_colour_images(count):
    images, labels = torch.rand(count, 3, 9, 9), torch.zeros(count, dtype=torch.long)
    pixels = render(plot_samples(images, labels, NAMES, "title"))
    assert pixels.dtype == np.uint8
    assert pixels.shape[1] > 800
    image = Image.open(io.BytesIO(encode_png(pixels)))
    assert np.array_equal(np.array(image), pixels)


@pytest.fixture
def answers():
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 200)
    return torch.from_numpy(labels), torch.from_numpy((labels * 0.3 + random.random(200)) / 1.3).float()


def test_roc_and_precision_recall_are_scikit_learn_s_with_the_threshold_marked(answers):
    labels, scores = answers
    predicted = scores >= 0.6
    for draw, expected, point in (
        (
            plot_roc,
            roc_curve(labels, scores)[:2],
            (1 - recall_score(1 - labels, ~predicted), recall_score(labels, predicted)),
        ),
        (
            plot_precision_recall,
            precision_recall_curve(labels, scores)[1::-1],
            (recall_score(labels, predicted), precision_score(labels, predicted)),
        ),
    ):
        ax = draw(labels, scores, 0.6, "title").axes[0]
        curve, marked = ax.lines[:2]
        assert np.array_equal(curve.get_xdata(), expected[0])
        assert np.array_equal(curve.get_ydata(), expected[1])
        assert (marked.get_xdata()[0], marked.get_ydata()[0]) == pytest.approx(point)
        assert "threshold 0.600" in ax.texts[0].get_text()


def test_curves_of_two_classes_show_the_auroc():
    row = {"epoch": 1} | {
        f"{stage}/{name}": 0.5 for stage in ("train", "val") for name in ("loss", "accuracy", "auroc")
    }
    assert [ax.get_title().split(" ")[0] for ax in plot_learning_curves([row]).axes] == ["Loss", "Accuracy", "AUROC"]


def test_heat_maps_leave_cold_places_as_they_are():
    images = torch.full((3, 1, 8, 8), 100, dtype=torch.uint8)
    heat = torch.zeros(3, 8, 8)
    heat[:, 0, 0] = 1
    figure = plot_heat_maps(images, heat, ["a", "b", "c"], {"first": 2, "second": 1}, "title")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["first", "second"]
    shown = figure.axes[0].images[0].get_array()
    assert shown[5, 5].tolist() == pytest.approx([100 / 255] * 3)
    assert shown[0, 0, 0] > shown[0, 0, 2] + 0.2  # hot is red


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_bands_are_mean_and_deviation_over_seeds_of_any_length():
    runs = [[0.2, 0.6, 0.7], [0.4, 0.8]]
    figure = plot_metric_over_epochs({"model=cnn": runs, "model=mlp": [[0.1, 0.1]]}, "val/accuracy")
    np.testing.assert_allclose(lines(figure)["model=cnn (n = 2)"].get_ydata(), [0.3, 0.7, 0.7])
    (band,) = figure.axes[0].collections  # one run has no deviation
    corners = {tuple(np.round(corner, 6)) for corner in band.get_paths()[0].vertices}
    half = np.std([0.2, 0.4], ddof=1)
    assert {(1, round(0.3 + half, 6)), (1, round(0.3 - half, 6)), (3, 0.7)} <= corners
    render(figure)


def test_bands_draw_the_best_ten():
    figure = plot_metric_over_epochs({f"lr={i}": [[0.5, 0.5]] for i in range(12)}, "val/loss")
    assert len(figure.axes[0].get_lines()) == 10
    assert "the best 10 of 12" in figure.axes[0].get_title()


def test_an_annotated_grid_shows_its_numbers_and_leaves_gaps():
    figure = plot_grid([[0.25, 1.0], [float("nan"), 0.5]], ["a", "b"], ["x", "y"], "A", "X", "val/f1")
    ax = figure.axes[0]
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == {
        ((0, 0), "0.2500"),
        ((1, 0), "1.0000"),
        ((1, 1), "0.5000"),
    }
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y"]
    render(figure)


@pytest.mark.parametrize(("mode", "best"), [("max", 2), ("min", 0)])
def test_parallel_coordinates_place_numbers_to_scale_and_mark_the_best(mode, best):
    settings = [{"lr": "0.0001", "model": "cnn", "epochs": "1"}, {"lr": "0.001", "model": "mlp", "epochs": "2"}]
    settings.append({"lr": "0.01", "model": "cnn", "epochs": "2"})
    figure = plot_parallel_coordinates(settings, [0.5, 0.6, 0.9], "val/accuracy", mode)
    drawn = {
        tuple(np.round(line.get_ydata(), 6)): line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 4
    }
    expected = [(0, 0.25, 0, 0), (0.5, 0.75, 1, 0.25), (1, 0.25, 1, 1)]  # lr over a factor of 100: logarithmic
    assert set(drawn) == set(expected)
    assert max(drawn, key=lambda ys: drawn[ys].get_linewidth()) == expected[best]
    render(figure)

import numpy as np
import pytest

from imgclf.figures.learning_curves import plot_learning_curves, plot_metric_over_epochs
from imgclf.figures.style import render

pytestmark = pytest.mark.draws


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
    render(figure)


def two_class_row(epoch, **metrics):
    names = [f"{split}/{name}" for split in ("train", "val") for name in ("loss", "accuracy", "auroc")]
    return {"epoch": epoch, **dict.fromkeys(names, 0.5), **metrics}


def test_curves_of_two_classes_show_the_auroc():
    titles = [ax.get_title().split(" ")[0] for ax in plot_learning_curves([two_class_row(1)]).axes]
    assert titles == ["Loss", "Accuracy", "AUROC"]


@pytest.mark.parametrize("undefined", [None, float("nan")])
def test_an_undefined_metric_is_never_the_best(undefined):
    missing = two_class_row(1, **{"val/auroc": undefined})
    assert plot_learning_curves([missing]).axes[2].get_title() == "AUROC"
    assert "epoch 2" in plot_learning_curves([missing, two_class_row(2)]).axes[2].get_title()


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_bands_are_mean_and_deviation_over_runs_of_any_length():
    runs = [[0.2, 0.6, 0.7], [0.4, 0.8]]
    figure = plot_metric_over_epochs({"model=cnn": runs, "model=mlp": [[0.1, 0.1]]}, "val/accuracy")
    np.testing.assert_allclose(lines(figure)["model=cnn (n = 2)"].get_ydata(), [0.3, 0.7, 0.7])
    (band,) = figure.axes[0].collections  # one run has no deviation
    corners = {tuple(np.round(corner, 6)) for corner in band.get_paths()[0].vertices}
    half = np.std([0.2, 0.4], ddof=1)
    assert {(1, round(0.3 + half, 6)), (1, round(0.3 - half, 6)), (3, 0.7)} <= corners
    render(figure)


def test_a_band_is_the_deviation_of_the_runs_that_reached_the_epoch():
    figure = plot_metric_over_epochs({"": [[0.2, 0.6], [0.4, 0.8], [0.3]]}, "val/accuracy")
    (band,) = figure.axes[0].collections
    half = np.std([0.6, 0.8], ddof=1)
    assert (2, round(0.7 + half, 6)) in {tuple(np.round(corner, 6)) for corner in band.get_paths()[0].vertices}


def test_bands_draw_the_best_ten():
    figure = plot_metric_over_epochs({f"lr={i}": [[0.5, 0.5]] for i in range(12)}, "val/loss")
    assert len(figure.axes[0].get_lines()) == 10
    assert "the best 10 of 12" in figure.axes[0].get_title()

import numpy as np
import pytest

from imgclf.figures.style import render
from imgclf.figures.sweeps import plot_metric_grid, plot_parallel_coordinates

pytestmark = pytest.mark.draws


def test_a_metric_grid_shows_its_numbers_and_leaves_gaps():
    values = [[0.25, 1.0], [float("nan"), 0.5]]
    figure = plot_metric_grid(values, ["a", "b"], ["x", "y"], row_title="A", column_title="X", metric="val/f1")
    ax = figure.axes[0]
    assert {(text.get_position(), text.get_text()) for text in ax.texts} == {
        ((0, 0), "0.2500"),
        ((1, 0), "1.0000"),
        ((1, 1), "0.5000"),
    }
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y"]
    assert (ax.get_ylabel(), ax.get_xlabel(), ax.get_title()) == ("A", "X", "val/f1")
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


def test_parallel_coordinates_of_one_configuration_lie_in_the_middle():
    figure = plot_parallel_coordinates([{"lr": "0.1"}], [0.5], "val/accuracy", "max")
    assert figure.axes[0].get_lines()[-1].get_ydata().tolist() == [0.5, 0.5]

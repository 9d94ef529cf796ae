import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, precision_recall_curve, precision_score, recall_score, roc_curve

from imgclf.data.datasets import ImageDataset
from imgclf.figures.classification import (
    plot_confusion_matrix,
    plot_heat_maps,
    plot_label_issues,
    plot_mistakes,
    plot_predictions,
)
from imgclf.figures.curves import plot_calibration, plot_precision_recall, plot_roc
from imgclf.figures.style import BLUE, RED, render, shown_names, wrap_caption

pytestmark = pytest.mark.draws
NAMES = ["a", "b", "a long name", "ü"]


@pytest.fixture
def labels():
    return torch.from_numpy(np.random.default_rng(2).integers(0, 4, 50))


@pytest.fixture
def probabilities():
    return torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(4), 50)).float()


def captions(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_confusion_matrix_shows_counts_and_row_shares(labels, probabilities):
    expected = confusion_matrix(labels, probabilities.argmax(1))
    figure = plot_confusion_matrix(torch.from_numpy(expected), NAMES, "title")
    cells = [f"{count:,}\n{100 * count / row.sum():.1f}%" for row in expected for count in row if count]
    assert captions(figure) == cells
    ax = figure.axes[0]
    assert [label.get_text() for label in (*ax.get_xticklabels(), *ax.get_yticklabels())] == NAMES * 2
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")


def test_a_confusion_matrix_takes_a_class_without_images():
    assert captions(plot_confusion_matrix(torch.tensor([[3, 1], [0, 0]]), ["a", "b"], "title")) == [
        "3\n75.0%",
        "1\n25.0%",
    ]


def test_a_confusion_matrix_of_many_classes_is_no_larger_than_a_screen():
    figure = plot_confusion_matrix(torch.eye(200, dtype=torch.int64), [str(i) for i in range(200)], "title")
    assert captions(figure) == []
    assert max(render(figure).shape) < 2000


def test_class_names_are_no_formulas():
    figure = plot_confusion_matrix(torch.eye(2, dtype=torch.int64), ["$\\bad$", "b"], "title")
    assert render(figure).min() < 50


def test_mistakes_are_the_most_confident_errors_in_order(labels, probabilities):
    images = ImageDataset(torch.zeros(50, 1, 8, 8, dtype=torch.uint8), labels)
    confidence, predicted = probabilities.max(1)
    figure = plot_mistakes(images, labels, predicted, probabilities, NAMES, "t")
    wrong = sorted((i for i in range(50) if predicted[i] != labels[i]), key=lambda i: -confidence[i])
    shown = captions(figure)
    assert len(shown) == min(30, len(wrong))
    for caption, i in zip(shown, wrong, strict=False):
        assert caption == f"{NAMES[labels[i]]} → {NAMES[predicted[i]]}\n{100 * confidence[i]:.0f}%"


class Answer:
    def __init__(self, predicted, probability=0.75):
        self.predicted, self.probability = predicted, probability
        self.class_name = "unclear" if predicted is None else NAMES[predicted]


def test_predictions_name_the_true_class_of_a_wrong_answer_in_red():
    images = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    answers = [Answer(0), Answer(1), Answer(3), Answer(None, None)]
    figure = plot_predictions(images, [0, 0, None, None], answers, NAMES, "Seen")
    assert captions(figure) == ["a\n75%", "a → b\n75%", "ü\n75%", "unclear"]
    assert [text.get_color() for text in figure.axes[0].texts] == ["black", RED, "black", "black"]
    assert figure.get_suptitle() == "Seen"


@pytest.fixture
def answers():
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 200)
    return torch.from_numpy(labels), torch.from_numpy((labels * 0.3 + random.random(200)) / 1.3).float()


def check_curve(figure, expected_x, expected_y, point):
    ax = figure.axes[0]
    lines = {line.get_label(): line for line in ax.lines}
    (curve,) = (line for line in ax.lines if line.get_color() == BLUE)
    assert np.array_equal(curve.get_xdata(), expected_x)
    assert np.array_equal(curve.get_ydata(), expected_y)
    (marked,) = (line for label, line in lines.items() if label.startswith("threshold 0.600"))
    assert (marked.get_xdata()[0], marked.get_ydata()[0]) == pytest.approx(point)
    assert any("Chance" in label for label in lines)
    render(figure)


def test_roc_is_that_of_scikit_learn_with_the_threshold_marked(answers):
    labels, scores = answers
    predicted = scores >= 0.6
    false_positives, sensitivity, _ = roc_curve(labels, scores)
    point = (1 - recall_score(1 - labels, ~predicted), recall_score(labels, predicted))
    check_curve(plot_roc(labels, scores, 0.6, "title"), false_positives, sensitivity, point)


def test_precision_recall_is_that_of_scikit_learn_with_the_threshold_marked(answers):
    labels, scores = answers
    predicted = scores >= 0.6
    precision, recall, _ = precision_recall_curve(labels, scores)
    point = (recall_score(labels, predicted), precision_score(labels, predicted))
    check_curve(plot_precision_recall(labels, scores, 0.6, "title"), recall, precision, point)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.filterwarnings("ignore")
def test_curves_are_drawn_where_one_of_the_classes_is_missing(label, answers):
    for plot in (plot_roc, plot_precision_recall):
        render(plot(torch.full((200,), label), answers[1], 2.0, "title"))


def test_heat_maps_leave_cold_places_as_they_are():
    images = torch.full((3, 1, 8, 8), 100, dtype=torch.uint8)
    heat = torch.zeros(3, 8, 8)
    heat[:, 0, 0] = 1
    figure = plot_heat_maps(images, heat, ["a", "b", "c"], {"first": 2, "second": 1}, "title")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["first", "second"]
    assert [[text.get_text() for text in ax.texts] for ax in figure.axes] == [["a", "b"], ["c"]]
    shown = figure.axes[0].images[0].get_array()
    assert shown[5, 5].tolist() == pytest.approx([100 / 255] * 3)
    assert shown[0, 0, 0] > shown[0, 0, 2] + 0.2  # hot is red


def test_no_figure_is_left_in_pyplot(answers):
    from matplotlib import pyplot

    plot_roc(*answers, 0.6, "title")
    plot_confusion_matrix(torch.eye(2, dtype=torch.int64), ["a", "b"], "title")
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize("classes", [20, 200, 1000])
def test_a_confusion_matrix_of_any_size_is_bounded_and_names_some_classes(classes):
    figure = plot_confusion_matrix(torch.eye(classes, dtype=torch.int64), [f"class_{i}" for i in range(classes)], "t")
    assert max(figure.get_size_inches()) < 18
    assert 20 <= len(figure.axes[0].get_xticklabels()) <= 40


def test_long_names_are_divided_and_shortened():
    name, other = "Staffordshire_bullterrier_of_a_kind", "glioma_tumor"
    assert wrap_caption(f"{name} → {other}\n45%") == "Staffordshir…r_of_a_kind\n→ glioma_tumor\n45%"
    assert wrap_caption("a → b\n45%") == "a → b\n45%"


def test_names_that_no_font_has_are_numbered_once(caplog):
    names = [chr(0x10FFF0), "b"]
    for _ in range(2):
        figure = plot_confusion_matrix(torch.eye(2, dtype=torch.int64), names, "title")
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["class 0", "class 1"]
    assert len(caplog.records) <= 1
    assert shown_names(["ü", "Görüntüler"]) == ["ü", "Görüntüler"]


def test_calibration_is_how_often_answers_of_a_confidence_are_right():
    confidence = torch.tensor([0.5, 0.5, 0.9, 0.9, 0.9, 1.0])
    figure = plot_calibration(torch.tensor([True, False, True, True, False, True]), confidence, "title")
    (line,) = (line for line in figure.axes[0].lines if line.get_color() == BLUE)
    assert line.get_xdata().tolist() == pytest.approx([0.5, 0.9, 1.0])
    assert line.get_ydata().tolist() == pytest.approx([0.5, 2 / 3, 1.0])
    render(figure)


def test_label_issues_are_ranked_and_name_both_classes():
    images = ImageDataset(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    figure = plot_label_issues(images, torch.tensor([0, 1]), torch.tensor([1, 3]), torch.tensor([0.9, 0.5]), NAMES, "t")
    assert captions(figure) == ["1. a\n→ b +90%", "2. b\n→ ü +50%"]
    render(figure)
    empty = torch.empty(0, dtype=torch.int64)
    images.rows = empty
    assert "none" in plot_label_issues(images, empty, empty, torch.empty(0), NAMES, "t").get_suptitle()

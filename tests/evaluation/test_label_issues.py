import pytest
import torch

from imgclf.evaluation.label_issues import find_label_issues


def test_issues_are_confident_answers_of_another_class_by_margin():
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    of_one = torch.tensor([0.1, 0.2, 0.95, 0.9, 0.8, 0.3])  # thresholds: 0.583 of class 0, 0.667 of class 1
    issues = find_label_issues(labels, torch.stack([1 - of_one, of_one], 1))
    assert issues.rows.tolist() == [2, 5]
    assert issues.suggested.tolist() == [1, 0]
    assert issues.margins.tolist() == pytest.approx([0.9, 0.4])


def test_an_answer_below_the_usual_confidence_of_its_class_is_no_issue():
    labels = torch.tensor([0, 0, 1, 1])
    of_one = torch.tensor([0.1, 0.6, 0.9, 0.9])  # 0.6 is less than class 1's images have, 0.9
    assert not len(find_label_issues(labels, torch.stack([1 - of_one, of_one], 1)).rows)


def test_a_label_that_is_the_most_probable_class_is_no_issue_though_it_is_not_confident():
    labels = torch.tensor([0, 0, 0, 1])
    of_one = torch.tensor([0.05, 0.05, 0.45, 0.4])  # 0.45 reaches class 1's threshold, 0.55 not that of class 0, 0.82
    assert find_label_issues(labels, torch.stack([1 - of_one, of_one], 1)).rows.tolist() == []


def test_a_class_without_images_is_suggested_to_none():
    issues = find_label_issues(torch.tensor([0, 1]), torch.tensor([[0.1, 0.1, 0.8], [0.1, 0.2, 0.7]]))
    assert not len(issues.rows)

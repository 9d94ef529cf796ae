import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, log_loss, roc_auc_score

from imgclf.core.files import write_csv
from imgclf.evaluation.answers import pair, read_answers
from imgclf.evaluation.compare import differences, mcnemar
from imgclf.evaluation.predictions import PREDICTION_COLUMNS
from tests.conftest import PROJECT

NAMES = ["ape", "bee, big", "cat"]


def write_table(folder, labels, probabilities, files=None, names=NAMES):
    """A predictions.csv as evaluate.py writes it."""
    rows = []
    for row, (label, shares) in enumerate(zip(labels, probabilities, strict=True)):
        answer = int(np.argmax(shares))
        file = files[row] if files else row
        rows.append([file, label, names[label], answer, names[answer], f"{shares[answer]:.6f}"])
        rows[-1] += [f"{share:.6f}" for share in shares]
    write_csv(folder / "predictions.csv", [*PREDICTION_COLUMNS, *(f"p({name})" for name in names)], rows)
    return folder


@pytest.fixture
def two(tmp_path):
    """Two folders with a predictions.csv of the same 90 images, their labels and their probabilities."""
    labels = np.arange(90) % 3
    shares = [(torch.randn(90, 3) + sharpness * torch.eye(3)[labels]).softmax(1).numpy() for sharpness in (1, 2)]
    a, b = (write_table(tmp_path / name, labels, each) for name, each in zip("ab", shares, strict=True))
    return a, b, labels, [each.round(6) for each in shares]


def test_metrics_and_differences_are_those_of_scikit_learn_on_the_same_resamples(two):
    a, b, labels, shares = two
    found = differences(*pair(read_answers(a), read_answers(b)), resamples=4000)

    def by_hand(rows):
        values = []
        for each in shares:
            answers, truth, given = each[rows].argmax(1), labels[rows], each[rows] / each[rows].sum(1, keepdims=True)
            values.append(
                {
                    "accuracy": accuracy_score(truth, answers),
                    "f1": f1_score(truth, answers, average="macro"),
                    "kappa": cohen_kappa_score(truth, answers),
                    "loss": log_loss(truth, given),
                    "auroc": roc_auc_score(truth, given, average="macro", multi_class="ovr"),
                }
            )
        return values

    one, other = by_hand(np.arange(90))
    random = np.random.default_rng(0)
    draws = [by_hand(random.integers(90, size=90)) for _ in range(300)]
    for name, value in one.items():
        assert found[name].first == pytest.approx(value, abs=1e-4), name
        assert found[name].second == pytest.approx(other[name], abs=1e-4), name
        assert found[name].difference == pytest.approx(other[name] - value, abs=1e-4)
        low, high = np.quantile([second[name] - first[name] for first, second in draws], [0.025, 0.975])
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=0.2 * (high - low)), name
    assert {"precision", "recall"} <= set(found)


def test_mcnemar_is_the_binomial_test_of_scipy(two):
    a, b, labels, shares = two
    right = [each.argmax(1) == labels for each in shares]
    only_a, only_b = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    answers = pair(read_answers(a), read_answers(b))
    assert only_a != only_b
    assert mcnemar(*answers) == (only_a, only_b, binomtest(only_b, only_a + only_b).pvalue)
    assert mcnemar(answers[0], answers[0]) == (0, 0, 1)


def test_the_command_leaves_what_only_one_gets_right(two, script, tmp_path):
    a, b, labels, shares = two
    result = script("imgclf/compare.py", a, b, "to=out")
    assert result.code == 0, result.err
    right = [each.argmax(1) == labels for each in shares]
    with (tmp_path / "out" / "comparison.csv").open() as file:
        rows = {int(row["file"]): row for row in csv.DictReader(file)}
    assert sorted(rows) == (right[0] != right[1]).nonzero()[0].tolist()
    assert all((row["right"] == "first") == right[0][image] for image, row in rows.items())
    summary = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert summary["images"] == 90
    assert summary["metrics"]["accuracy"]["second"] == pytest.approx(right[1].mean())
    assert f"p = {summary['mcnemar_p']:.4g}" in result.out
    assert "there is no contact sheet" in result.err + result.out


def test_files_in_other_folders_and_classes_in_another_order_are_matched(two, script, tmp_path):
    _, _, labels, shares = two
    names = [f"{NAMES[label]}/{row}.png" for row, label in enumerate(labels)]
    for name in names:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 20), 90).save(tmp_path / "here" / name)
    a = write_table(tmp_path / "first", labels, shares[0], [str(tmp_path / "here" / name) for name in names])
    order = [2, 0, 1]
    backwards = [*reversed(range(90))]
    b = write_table(
        tmp_path / "second",
        [order.index(labels[row]) for row in backwards],
        shares[1][backwards][:, order],
        [f"/there/{names[row]}" for row in backwards],
        [NAMES[i] for i in order],
    )
    first, second = pair(read_answers(a), read_answers(b))
    assert torch.equal(first.labels, second.labels)
    assert second.probabilities.numpy() == pytest.approx(shares[1])
    assert second.predicted.tolist() == shares[1].argmax(1).tolist()
    assert script("imgclf/compare.py", a, b, "to=out").code == 0
    assert (tmp_path / "out" / "figures" / "comparison.png").exists()


def test_runs_are_compared_with_their_own_images(run, train, script, tmp_path):
    options = ("data=noisy_digits", "data.variation=rot", "model=mlp", "model.hidden=[32]", "seed=1")
    assert train(*options, "hydra.run.dir=other").code == 0
    result = script("imgclf/compare.py", run, "other", "to=out")
    assert result.code == 0, result.err
    assert (tmp_path / "out" / "figures" / "comparison.png").exists()
    own = json.loads((run / "metrics.json").read_text())
    for name, values in json.loads((tmp_path / "out" / "comparison.json").read_text())["metrics"].items():
        assert values["first"] == pytest.approx(own[f"test/{name}"], abs=1e-4), name


def test_bad_input(two, script, tmp_path):
    a, b, labels, shares = two
    fewer = write_table(tmp_path / "fewer", labels[:60], shares[0][:60])
    other = write_table(tmp_path / "other", (labels + (labels == 0)), shares[0])
    apart = write_table(tmp_path / "apart", labels, shares[0], [f"x{row}" for row in range(90)])
    birds = write_table(tmp_path / "birds", labels, shares[0], names=["ape", "bee", "cat"])
    text = (b / "predictions.csv").read_text().splitlines()
    (tmp_path / "old.csv").write_text("\n".join(",".join(line.split(",")[:6]) for line in text[:1] + text[2:3]))
    (tmp_path / "cut.csv").write_text("\n".join([*text[:3], text[3][:9]]))
    (tmp_path / "else.csv").write_text("a,b\n1,2\n")
    (tmp_path / "empty.csv").write_text("")
    for given, named in (
        ([a], ["1 runs", "name two"]),
        ([a, b, fewer], ["3 runs"]),
        ([a, "nowhere"], ["nowhere", "no such file"]),
        ([a, tmp_path], [str(tmp_path), "no predictions.csv"]),
        ([a, fewer], ["90 images", "60", "the same images"]),
        ([a, other], ["30 of 90 images have other labels", "image 0", "ape", "bee, big"]),
        ([a, apart], ["no image in common", "x0"]),
        ([a, birds], ["bee, big", "same classes"]),
        ([a, "old.csv"], ["old.csv", "p(NAME)"]),
        ([a, "cut.csv"], ["cut.csv, line 4"]),
        ([a, "else.csv"], ["else.csv", "file,label"]),
        ([a, "empty.csv"], ["empty.csv", "file,label"]),
        ([a, b, f"to={a}"], [str(a), "not empty"]),
    ):
        error = script("imgclf/compare.py", *given, *([] if "to=" in str(given[-1]) else ["to=bad"])).error
        assert all(part in error for part in named), error
    assert not (tmp_path / "bad").exists() or not os.listdir(tmp_path / "bad")


def test_help_comes_at_once():
    code = (
        "import sys; from imgclf.compare import main; main(['--help']); "
        "assert not {'torch', 'lightning', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python -m imgclf.compare FIRST SECOND" in done.stdout

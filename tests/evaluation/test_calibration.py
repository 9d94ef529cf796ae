import csv
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import log_loss

from imgclf import load
from imgclf.data.digits import Digits
from imgclf.evaluation.calibration import choose_temperature
from imgclf.evaluation.evaluate import evaluate
from imgclf.inference.onnx_export import export

SMALL = ("data=noisy_digits", "data.variation=rot", "model=mlp", "model.hidden=[32]")


@pytest.mark.parametrize("sharpness", [0.02, 0.3, 1, 3, 30])
def test_the_temperature_is_the_best_one_and_never_raises_the_loss(sharpness):
    labels = torch.arange(200) % 4
    logits = sharpness * (torch.randn(200, 4) + torch.eye(4)[labels])
    chosen = choose_temperature(logits, labels)
    losses = {value: log_loss(labels, (logits.double() / value).softmax(1)) for value in np.geomspace(0.01, 100, 800)}
    own = log_loss(labels, (logits.double() / chosen).softmax(1))
    assert own <= log_loss(labels, logits.double().softmax(1))
    assert own <= min(losses.values()) + 1e-5
    assert chosen == pytest.approx(min(losses, key=losses.get), rel=0.03)


def test_certain_answers_that_are_all_right_stay_finite():
    labels = torch.arange(20) % 2
    assert 0 < choose_temperature(50 * torch.eye(2)[labels], labels) <= 1


def test_a_run_keeps_its_temperature_and_every_reader_uses_it(train, script, tmp_path):
    options = (*SMALL, "trainer.max_epochs=3", "optimizer.lr=0.02")
    assert train(*options, "hydra.run.dir=plain").code == 0
    result = train(*options, "classifier.temperature=validation", "hydra.run.dir=run")
    assert result.code == 0, result.err
    plain, own = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "run"))
    assert own["val/loss"] < plain["val/loss"]
    assert own["val/accuracy"] == plain["val/accuracy"]
    with (tmp_path / "run" / "metrics.csv").open() as file:  # the loss of the network itself
        losses = [float(row["val/loss"]) for row in csv.DictReader(file)]
    assert losses[own["best_epoch"] - 1] == pytest.approx(plain["val/loss"], rel=1e-4)

    predictor, before = load(tmp_path / "run/checkpoints/best.ckpt"), load(tmp_path / "plain/checkpoints/best.ckpt")
    temperature = float(predictor.classifier.temperature)
    assert temperature != 1
    assert load(tmp_path / "run/checkpoints/last.ckpt").classifier.temperature == 1
    images = Digits().eval_dataset("test")[:9][0]
    expected = (before.logits(images) / temperature).softmax(1)
    assert predictor.predict_proba(images).numpy() == pytest.approx(expected.numpy(), abs=1e-5)

    (tmp_path / "run" / "metrics.json").unlink()  # as if killed before it was written
    assert train(*options, "classifier.temperature=validation", "hydra.run.dir=run", "resume=true").code == 0
    again = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert again["val/loss"] == own["val/loss"]
    assert script("evaluate.py", f"ckpt={tmp_path}/run/checkpoints/best.ckpt", "hydra.run.dir=e").code == 0
    assert json.loads((tmp_path / "e" / "metrics.json").read_text())["test/loss"] == pytest.approx(own["test/loss"])
    pytest.importorskip("onnxscript")
    assert export(predictor, tmp_path / "a.onnx") < 1e-4


def test_a_number_is_used_in_evaluation_only(train, tmp_path):
    assert train(*SMALL, "hydra.run.dir=one").code == 0
    assert train(*SMALL, "hydra.run.dir=two", "classifier.temperature=2").code == 0
    one, two = (load(tmp_path / name / "checkpoints" / "best.ckpt") for name in ("one", "two"))
    images, labels = Digits().eval_dataset("test")[:50]
    assert two.logits(images).numpy() == pytest.approx(one.logits(images).numpy() / 2, abs=1e-6)
    metrics = json.loads((tmp_path / "two" / "metrics.json").read_text())
    with (tmp_path / "two" / "metrics.csv").open() as file:
        assert float(next(csv.DictReader(file))["val/loss"]) == pytest.approx(metrics["val/loss"], rel=1e-4)
    found = evaluate(two, Digits(), "test")
    assert found.losses[:50].numpy() == pytest.approx(F.cross_entropy(two.logits(images), labels, reduction="none"))


def test_a_threshold_that_validation_chose_moves_along(train, tmp_path):
    options = ("data=chest_xray", "data.image_size=20", "model=mlp", "model.hidden=[8]", "trainer.max_epochs=2")
    options += ("classifier.threshold=validation",)
    for name, more in (("plain", ()), ("run", ("classifier.temperature=validation",))):
        result = train(*options, *more, f"hydra.run.dir={name}")
        assert result.code == 0, result.err
    plain, own = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("plain", "run"))
    for metric in ("accuracy", "sensitivity", "specificity"):
        assert own[f"test/{metric}"] == plain[f"test/{metric}"]
    assert own["val/loss"] <= plain["val/loss"]


def test_bad_input(train, tmp_path):
    for given, named in (
        (["classifier.temperature=0"], ["classifier.temperature=0", "above 0", "validation"]),
        (["classifier.temperature=test"], ["classifier.temperature=test", "validation"]),
    ):
        error = train(*SMALL, *given, "hydra.run.dir=bad").error
        assert all(part in error for part in named), error
    for labels, message in ((torch.zeros(0).long(), "no images"), (torch.ones(5).long(), "5 images of one class")):
        with pytest.raises(ValueError, match=f"temperature=validation: the validation split has {message}"):
            choose_temperature(torch.randn(len(labels), 2), labels)


def test_a_validation_folder_of_one_class_is_refused_before_training(train, tiny_data, tmp_path):
    folder = tmp_path / "xrays"
    for part, source in (("train", "train"), ("val", "test")):
        for name in ("NORMAL", "PNEUMONIA") if part == "train" else ("NORMAL",):
            (folder / part).mkdir(parents=True, exist_ok=True)
            (folder / part / name).symlink_to(tiny_data / "chest_xray" / source / name)
    options = ("data=image_folder", f"data.root={folder}", "data.image_size=20", "model=mlp", "model.hidden=[8]")
    error = train(*options, "classifier.temperature=validation", "hydra.run.dir=bad").error
    assert "classifier.temperature=validation: the validation split has" in error
    assert "one class" in error
    assert not (tmp_path / "bad" / "checkpoints").exists()

"""Folders of images from the command line: two classes, three classes, evaluation and prediction."""

import csv
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from imgclf import load
from imgclf.options import BINARY_METRICS, METRICS
from tests.conftest import tiny_images

XRAY = ("data=chest_xray", "data.image_size=32", "data.batch_size=16", "model=cnn", "model.channels=[8]")


def values(folder) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def rows(folder) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.draws
def test_a_binary_run_and_its_evaluation(train, script, tiny_data, tmp_path):
    result = train(
        *(*XRAY, "model.threshold=validation", "data.balance=sampler", "augmentation=photo", "objective=val/auroc"),
        *("trainer.max_epochs=2", "hydra.run.dir=run"),
    )
    assert result.code == 0, result.err
    run = tmp_path / "run"
    metrics = values(run)
    for split in ("train", "val", "test"):
        assert {f"{split}/{name}" for name in METRICS + BINARY_METRICS} <= set(metrics)
    assert "specificity" in result.out
    figures = {path.stem for path in (run / "figures").iterdir()}
    assert {"data", "samples", "curves", "confusion_matrix", "mistakes", "roc", "precision_recall"} == figures

    predictor = load(run / "checkpoints" / "best.ckpt")
    assert predictor.class_names == ["NORMAL", "PNEUMONIA"]
    assert 0 < predictor.threshold < 1
    assert predictor.threshold != 0.5

    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, f"data_dir={tiny_data}", "hydra.run.dir=evaluated")
    assert result.code == 0, result.err
    evaluated = tmp_path / "evaluated"
    for name, value in values(evaluated).items():
        assert metrics[name] == value
    intervals = json.loads((evaluated / "intervals.json").read_text())
    assert set(intervals) == set(values(evaluated))
    for name, (low, high) in intervals.items():
        assert low <= values(evaluated)[name] <= high or name == "test/calibration_error"  # biased upwards
    assert intervals["test/loss"][0] < intervals["test/loss"][1]
    assert f"PNEUMONIA is predicted from a probability of {predictor.threshold:.4f} on" in result.out
    assert {"roc", "precision_recall", "grad_cam"} <= {path.stem for path in (evaluated / "figures").iterdir()}

    answers = rows(evaluated)
    assert len(answers) == 30
    assert all(os.path.isfile(row["file"]) for row in answers)
    assert all(("PNEUMONIA" in row["file"]) == (row["label"] == "1") for row in answers)
    scores = [abs(float(row["probability"]) - (row["predicted"] == "0")) for row in answers]
    for score, row in zip(scores, answers, strict=True):
        assert (score >= predictor.threshold) == (row["predicted"] == "1")
    auroc = roc_auc_score([int(row["label"]) for row in answers], scores)
    assert auroc == pytest.approx(metrics["test/auroc"], abs=1e-4)

    pictures = tiny_data / "chest_xray" / "test"
    result = script("evaluate.py", ckpt, f"images={pictures}", "hydra.run.dir=predicted")
    assert result.code == 0, result.err
    same = {row["file"]: row["predicted"] for row in answers}
    assert {row["file"]: row["predicted"] for row in rows(tmp_path / "predicted")} == same


def test_classes_in_another_order_are_refused(train, script, tiny_data):
    assert train(*XRAY, "hydra.run.dir=run").code == 0
    arguments = ("ckpt=run/checkpoints/best.ckpt", f"data_dir={tiny_data}", "data.positive=NORMAL")
    assert "come in another order" in script("evaluate.py", *arguments).error


def test_three_classes_of_mixed_formats_and_sizes(train, script, tmp_path):
    images, labels = tiny_images(120, 3)
    kinds = (
        ("png", lambda image: Image.fromarray(image)),
        ("JPG", lambda image: Image.fromarray(image).resize((61, 61)).convert("RGB")),
        ("webp", lambda image: Image.fromarray(image).convert("RGBA")),
        ("bmp", lambda image: Image.fromarray(image).resize((40, 40))),
        ("tif", lambda image: Image.fromarray(image.astype(np.uint16) * 257)),
    )
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        suffix, convert = kinds[i % len(kinds)]
        file = tmp_path / "my pictures" / ("top", "middle", "bottom")[label] / f"{i:03}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        convert(image).save(file)
    result = train(
        *("data=image_folder", "data.root=my pictures", "data.image_size=28", "data.channels=1", "model=mlp"),
        *("trainer.max_epochs=12", "hydra.run.dir=run"),
    )
    assert result.code == 0, result.err
    metrics = values(tmp_path / "run")
    assert metrics["test/accuracy"] > 0.9
    assert "test/auroc" not in metrics

    ckpt = "ckpt=run/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, "hydra.run.dir=evaluated")
    assert result.code == 0, result.err
    assert values(tmp_path / "evaluated")["test/accuracy"] == metrics["test/accuracy"]
    assert len(rows(tmp_path / "evaluated")) == 24

    result = script("evaluate.py", ckpt, "images='my pictures'", "hydra.run.dir=predicted")
    assert result.code == 0, result.err
    answers = rows(tmp_path / "predicted")
    assert len(answers) == 120
    assert np.mean([row["class_name"] in row["file"] for row in answers]) > 0.9


def test_every_bad_file_is_named_before_training(train, tmp_path):
    for i in range(40):
        file = tmp_path / "set" / ("a" if i % 2 else "b") / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), 6 * i).save(file)
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / "set" / name).write_text("no picture")
    options = ("data=image_folder", "data.root=set", "data.image_size=8", "data.batch_size=8", "model=mlp")
    line = train(*options, "hydra.run.dir=run").error
    for part in ("2 of 40 images cannot be read", "a/1.png (not a readable image", "b/2.png", "data.skip_bad=true"):
        assert part in line
    result = train(*options, "data.skip_bad=true", "hydra.run.dir=run")
    assert result.code == 0, result.err
    assert "left out 2 of 40" in result.out


def test_a_resumed_binary_run_ends_as_one_never_stopped(train, power_cut, tmp_path):
    recipe = (
        *("data=chest_xray", "data.image_size=32", "data.batch_size=16", "model.threshold=validation"),
        *("data.balance=weighted_loss", "augmentation=photo", "trainer.max_epochs=4"),
        *("model=torchvision", "model.name=squeezenet1_1", "model.freeze_epochs=2"),
    )
    assert train(*recipe, "hydra.run.dir=whole").code == 0
    with power_cut(3):
        assert "power cut" in train(*recipe, "hydra.run.dir=cut").error
    assert train(*recipe, "hydra.run.dir=cut", "resume=true").code == 0
    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)

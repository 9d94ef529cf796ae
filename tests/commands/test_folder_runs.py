"""Folders of images from the command line: two classes, three classes, evaluation and prediction."""

import json
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from imgclf import load
from imgclf.core.files import read_csv
from imgclf.core.names import BINARY_METRICS, METRICS
from imgclf.data.datamodule import ImageDataModule
from imgclf.evaluation.explain import explain_image
from imgclf.inference.onnx_export import TOLERANCE, export
from tests.conftest import tiny_images

XRAY = ("data=chest_xray", "data.image_size=32", "data.batch_size=16", "model=cnn", "model.channels=[8]")


def values(folder) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def rows(folder) -> list[dict[str, str]]:
    return read_csv(folder / "predictions.csv")


@pytest.mark.draws
def test_a_binary_run_and_its_evaluation(train, script, tiny_data, tmp_path):
    result = train(
        *(*XRAY, "classifier.threshold=validation", "data.balance=sampler"),
        *("augmentation=photo", "objective=val/auroc"),
        *("trainer.max_epochs=2", "hydra.run.dir=run"),
    ).ok()
    run = tmp_path / "run"
    metrics = values(run)
    for split in ("train", "val", "test"):
        assert {f"{split}/{name}" for name in METRICS + BINARY_METRICS} <= set(metrics)
    assert "specificity" in result.out
    figures = {path.stem for path in (run / "figures").iterdir()}
    drawn = {"data", "samples", "curves", "calibration", "risk_coverage", "confusion_matrix", "mistakes"}
    drawn |= {"roc", "precision_recall"}
    assert figures == drawn

    predictor = load(run / "checkpoints" / "best.ckpt")
    assert predictor.class_names == ["NORMAL", "PNEUMONIA"]
    assert 0 < predictor.threshold < 1
    assert predictor.threshold != 0.5

    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, f"data_dir={tiny_data}", "hydra.run.dir=evaluated").ok()
    evaluated = tmp_path / "evaluated"
    for name, value in values(evaluated).items():
        assert metrics[name] == value
    intervals = json.loads((evaluated / "intervals.json").read_text())
    assert set(intervals) == {name for name in values(evaluated) if "accuracy_at" not in name}
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
    script("evaluate.py", ckpt, f"images={pictures}", "hydra.run.dir=predicted").ok()
    same = {row["file"]: row["predicted"] for row in answers}
    assert {row["file"]: row["predicted"] for row in rows(tmp_path / "predicted")} == same


def test_no_test_image_is_looked_at_before_the_network_and_its_threshold_are_chosen(train, tmp_path, monkeypatch):
    recipe = (
        *XRAY,
        "classifier.threshold=validation",
        "callbacks=early_stopping",
        "trainer.max_epochs=3",
        "data.balance=sampler",
    )
    train(*recipe, "hydra.run.dir=free").ok()
    dataset = ImageDataModule.dataset

    def guarded(self, name):
        assert name != "test"
        return dataset(self, name)

    monkeypatch.setattr(ImageDataModule, "dataset", guarded)
    train(*recipe, "evaluate_on=[train,val]", "hydra.run.dir=guarded").ok()
    free, kept = values(tmp_path / "free"), values(tmp_path / "guarded")
    assert {name for name in free if not name.startswith("test/")} == set(kept)
    assert all(free[name] == kept[name] for name in kept if name.startswith("val/") or "epoch" in name)
    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
        for name in ("free", "guarded")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)  # the threshold among them
    assert "AssertionError" in train(*recipe, "hydra.run.dir=not_guarded").error  # the guard works


def test_classes_in_another_order_are_matched_by_name(train, script, tiny_data, tmp_path):
    train(*XRAY, "hydra.run.dir=run").ok()
    arguments = ("ckpt=run/checkpoints/best.ckpt", f"data_dir={tiny_data}", "data.positive=NORMAL")
    script("evaluate.py", *arguments, "hydra.run.dir=evaluated").ok()
    run, evaluated = values(tmp_path / "run"), values(tmp_path / "evaluated")
    assert evaluated == pytest.approx({name: run[name] for name in evaluated})


@pytest.mark.parametrize("names", [("bottom", "middle", "top"), tuple("0123456789")], ids=["words", "digits"])
def test_validation_images_the_page_predict_and_onnx_answer_alike(names, train, script, tmp_path):
    """Of files of all formats and sizes: the same classes, and probabilities that differ by ``TOLERANCE`` at most."""
    images, labels = tiny_images(120, len(names))
    kinds = (
        ("png", lambda image: Image.fromarray(image)),
        ("JPG", lambda image: Image.fromarray(image).resize((61, 61)).convert("RGB")),
        ("webp", lambda image: Image.fromarray(image).convert("RGBA")),
        ("bmp", lambda image: Image.fromarray(image).resize((40, 40))),
        ("tif", lambda image: Image.fromarray(image.astype(np.uint16) * 257)),
        ("jpeg", lambda image: Image.fromarray(image).resize((200, 180))),  # is decoded at a smaller size
        (
            "PNG",
            lambda image: Image.merge("LA", [Image.fromarray(image), Image.fromarray(255 - image)]).resize((70, 30)),
        ),
    )
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        suffix, convert = kinds[i % len(kinds)]
        file = tmp_path / "my pictures" / names[label] / f"{i:03}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        convert(image).save(file)
    train(
        *("data=image_folder", "data.root=my pictures", "data.image_size=28", "data.channels=1", "model=mlp"),
        *("trainer.max_epochs=12", "trainer.precision=32-true", "hydra.run.dir=run"),
    ).ok()
    run, ckpt = tmp_path / "run", "ckpt=run/checkpoints/best.ckpt"
    metrics = values(run)
    assert metrics["test/accuracy"] > (0.7 if len(names) == 10 else 0.9)
    assert "test/sensitivity" not in metrics
    best = read_csv(run / "metrics.csv")[metrics["best_epoch"] - 1]  # what was validated while it was trained
    for name in ("val/accuracy", "val/loss", "val/kappa"):
        assert float(best[name]) == pytest.approx(metrics[name], abs=TOLERANCE)
    script("evaluate.py", ckpt, "split=val", "hydra.run.dir=validated").ok()
    assert values(tmp_path / "validated")["val/accuracy"] == metrics["val/accuracy"]
    answers = rows(tmp_path / "validated")
    files = [row["file"] for row in answers]
    assert {os.path.splitext(file)[1] for file in files} >= {".png", ".JPG", ".webp", ".bmp", ".tif"}
    expected, probability = ([float(row[name]) for row in answers] for name in ("predicted", "probability"))

    def same(predicted, probabilities) -> None:
        assert list(predicted) == expected
        assert list(probabilities) == pytest.approx(probability, abs=TOLERANCE)

    script("evaluate.py", ckpt, "images='my pictures'", "hydra.run.dir=predicted").ok()
    told = {row["file"]: row for row in rows(tmp_path / "predicted")}
    assert len(told) == 120
    told = [next(row for name, row in told.items() if file.endswith(f"/{name}")) for file in files]
    same((float(row["predicted"]) for row in told), (float(row["probability"]) for row in told))
    predictor = load(run / "checkpoints" / "best.ckpt")
    given = predictor.predict(files)
    same((answer.predicted for answer in given), (answer.probability for answer in given))
    shown = [explain_image(predictor, file).probabilities for file in files]
    same((names.index(max(p, key=p.get)) for p in shown), (max(p.values()) for p in shown))
    export(run / "checkpoints" / "best.ckpt", tmp_path / "a.onnx")
    session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "a.onnx")
    probabilities, predicted = session.run(None, {"images": predictor.preprocess(files)[0].numpy()})
    same(predicted.tolist(), probabilities.max(1).tolist())


def test_a_folder_s_drawn_test_images_are_not_drawn_anew(train, script, tmp_path):
    for i in range(60):
        file = tmp_path / "set" / ("a" if i % 2 else "b") / f"{i // 2:02}-{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 4 * i).save(file)
    folder = ("data=image_folder", "data.root=set", "data.image_size=8", "data.channels=1")
    grouped = r"data.group_pattern='\d+'"
    train(*folder, grouped, "data.batch_size=8", "model=mlp", "hydra.run.dir=run").ok()
    ckpt = "ckpt=run/checkpoints/best.ckpt"
    for options in (
        folder,
        (*folder, grouped, "data.test_fraction=0.5"),
        (*folder, "data.root=../" + tmp_path.name + "/set"),
        ("data.test_fraction=0.5",),
    ):
        assert "the test images may be among those that" in script("evaluate.py", ckpt, *options).error
    assert "split=val" in script("evaluate.py", ckpt, *folder, grouped, "split=val").error
    for number, options in enumerate(((*folder, grouped), ("data.split_seed=5",))):  # the test part is always the same
        script("evaluate.py", ckpt, *options, f"hydra.run.dir={number}").ok()
        assert {row["file"] for row in rows(tmp_path / str(number))} == {row["file"] for row in rows(tmp_path / "0")}
        assert values(tmp_path / str(number))["test/loss"] == pytest.approx(values(tmp_path / "run")["test/loss"])

    shutil.copy(tmp_path / "set" / "a" / "00-1.png", tmp_path / "set" / "a" / "99-99.png")
    assert "it may have seen some" in script("evaluate.py", ckpt, "data.eval_batch_size=9").out


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
    result = train(*options, "data.skip_bad=true", "hydra.run.dir=run").ok()
    assert "left out 2 of 40" in result.out


def test_a_resumed_binary_run_ends_as_one_never_stopped(train, power_cut, tmp_path):
    recipe = (
        *("data=chest_xray", "data.image_size=32", "data.batch_size=16", "classifier.threshold=validation"),
        *("data.balance=weighted_loss", "augmentation=photo", "trainer.max_epochs=4"),
        *("model=torchvision", "model.name=squeezenet1_1", "model.freeze_epochs=2"),
    )
    train(*recipe, "hydra.run.dir=whole").ok()
    with power_cut(3):
        assert "power cut" in train(*recipe, "hydra.run.dir=cut").error
    train(*recipe, "hydra.run.dir=cut", "resume=true").ok()
    first, second = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "cut")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)

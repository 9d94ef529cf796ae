import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from imgclf import load
from imgclf.data.noisy import NoisyImages
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.predict_files import known_labels
from imgclf.evaluation.report import PREDICTION_COLUMNS

COLUMNS_IN_CONTRACT = "file,label,predicted,class_name,probability"


def metrics(folder, split="test") -> dict[str, float]:
    values = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in values.items() if name.startswith(f"{split}/")}


@pytest.fixture
def run(train, tmp_path):
    """A run's folder."""
    result = train("data=noisy_digits", "data.variation=rot", "model=mlp", "model.hidden=[32]", "hydra.run.dir=run")
    assert result.code == 0, result.err
    return tmp_path / "run"


@pytest.mark.draws
def test_evaluation_repeats_the_run_s_metrics_and_follows_other_variations(run, script, tmp_path):
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, "hydra.run.dir=same", "accelerator=cpu")
    assert result.code == 0, result.err
    assert metrics(tmp_path / "same") == metrics(run)
    assert script("evaluate.py", ckpt, "split=val", "hydra.run.dir=val").code == 0
    assert metrics(tmp_path / "val", "val") == metrics(run, "val")

    assert script("evaluate.py", ckpt, "data.variation=basic", "hydra.run.dir=other").code == 0
    named = ("data=noisy_digits", "data.variation=basic")
    assert script("evaluate.py", ckpt, *named, "data.eval_batch_size=7", "hydra.run.dir=named").code == 0
    assert metrics(tmp_path / "other") != metrics(run)
    other, again = metrics(tmp_path / "other"), metrics(tmp_path / "named")
    assert other == pytest.approx(again, rel=1e-6)  # batches of 7 sum in another order

    with (tmp_path / "other" / "predictions.csv").open() as file:
        assert file.readline().strip() == COLUMNS_IN_CONTRACT == ",".join(PREDICTION_COLUMNS)
        rows = list(csv.DictReader(file, PREDICTION_COLUMNS))
    images, labels = NoisyImages(base="digits", variation="basic").eval_dataset("test")[:]
    assert [int(row["file"]) for row in rows] == list(range(360))
    assert [int(row["label"]) for row in rows] == labels.tolist()
    correct = [row["label"] == row["predicted"] for row in rows]
    assert float(np.mean(correct)) == pytest.approx(other["test/accuracy"])
    answers = load(run / "checkpoints" / "best.ckpt").predict(images)
    assert [int(row["predicted"]) for row in rows] == [answer.predicted for answer in answers]
    assert [row["class_name"] for row in rows] == [answer.class_name for answer in answers]
    torch.testing.assert_close(
        torch.tensor([float(row["probability"]) for row in rows]),
        torch.tensor([answer.probability for answer in answers]),
        atol=1e-5,
        rtol=0,
    )
    assert "variation: basic" in (tmp_path / "other" / "config.yaml").read_text()
    assert json.loads((tmp_path / "other" / "environment.json").read_text())["device"] == "cpu"
    for name in ("confusion_matrix", "mistakes", "samples"):
        assert (tmp_path / "other" / "figures" / f"{name}.png").stat().st_size > 5000


def test_several_variations_in_one_command(run, script, tmp_path):
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    result = script("evaluate.py", "-m", ckpt, "data.variation=basic,rot", "hydra.sweep.dir=sweep")
    assert result.code == 0, result.err
    assert metrics(tmp_path / "sweep" / "1") == metrics(run)


def test_an_ensemble_and_several_views(run, script, tmp_path):
    best, last = (run / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    views = ("tta=3", "augmentation.affine.translate=0.1")
    result = script("evaluate.py", f"ckpt=[{best},{last}]", *views, "split=val", "hydra.run.dir=several")
    assert result.code == 0, result.err
    alone, together = metrics(run, "val"), metrics(tmp_path / "several", "val")
    assert set(together) == set(alone)
    assert together["val/loss"] != alone["val/loss"]
    assert script("evaluate.py", f"ckpt=[{best},{last}]", "hydra.run.dir=same").code == 0
    assert metrics(tmp_path / "same") == pytest.approx(metrics(run))  # one epoch: both are the same

    other = torch.load(best, weights_only=True)
    other["imgclf"]["data"]["split_seed"] = 7
    torch.save(other, tmp_path / "other.ckpt")
    both = f"ckpt=[{best},{tmp_path}/other.ckpt]"
    assert "use split=test" in script("evaluate.py", both, "split=val").error
    assert "${seed}: no such file" in script("evaluate.py", "ckpt=[${seed}]").error
    for wrong in ("[]", "{a: 1}", f"[{best},3]", "null"):
        assert "name a checkpoint" in script("evaluate.py", f"ckpt={wrong}").error


def test_predict_images(run, script, tmp_path):
    images = NoisyImages(base="digits", variation="rot").eval_dataset("test")[:5][0]
    folder = tmp_path / "pictures of digits"
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    (folder / "broken.png").write_text("no picture")
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, f"images='{folder}'", "hydra.run.dir=predicted")
    assert result.code == 0, result.err
    assert "broken.png" in result.out
    with (tmp_path / "predicted" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(folder / f"{i}.png") for i in range(5)]
    assert [row["label"] for row in rows] == [""] * 5

    for pattern, message in (
        (f"{folder}/*.gif", "no image"),
        (f"{folder}/broken.png", "none of 1 files is a readable image"),
        ("nowhere", "no image"),
    ):
        assert message in script("evaluate.py", ckpt, f"images='{pattern}'").error


@pytest.mark.parametrize("layout", ["labels.csv", "folders"])
def test_labels_beside_images_give_an_accuracy_and_a_confusion_matrix(layout, run, script, tmp_path):
    images, labels = NoisyImages(base="digits", variation="basic").eval_dataset("test")[:12]
    folder = tmp_path / "photos"
    rows = ["file,label"]
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        name = f"{label}/{i:02}.png" if layout == "folders" else f"scans/{i:02}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / name)
        rows.append(f"{name},{label}")
    if layout == "labels.csv":
        (folder / "labels.csv").write_text("\n".join(rows[:-2]) + "\n")  # of two the label is unknown
    Image.new("L", (200, 200), 255).save(folder / "blank.png")
    known = 12 if layout == "folders" else 10
    result = script("evaluate.py", f"ckpt={run}/checkpoints/best.ckpt", f"images={folder}", "hydra.run.dir=predicted")
    assert result.code == 0, result.err
    with (tmp_path / "predicted" / "predictions.csv").open() as file:
        answers = {Path(row["file"]).name: row for row in csv.DictReader(file)}
    blank = answers.pop("blank.png")
    assert (blank["label"], blank["predicted"], blank["class_name"], blank["probability"]) == (
        "",
        "",
        "no ink found",
        "",
    )
    labelled = [row for row in answers.values() if row["label"]]
    assert len(labelled) == known
    right = sum(row["label"] == row["predicted"] for row in labelled)
    assert json.loads((tmp_path / "predicted" / "metrics.json").read_text()) == {
        "images/count": 13,
        "images/labelled": known,
        "images/accuracy": pytest.approx(right / known),
    }
    assert f"accuracy on {known} labelled images" in result.out
    left = {path.stem for path in (tmp_path / "predicted" / "figures").iterdir()}
    assert left == {"predictions", "confusion_matrix"}


def test_labels_that_are_not_used_are_told(tmp_path, caplog):
    files = [tmp_path / "scans" / "a.png", tmp_path / "scans" / "b.png"]
    for listed, told in (
        ("scans/a.png,7\nscans/b.png,8", None),
        ("elsewhere/a.png,7", "labels.csv: names none of these images (a file is named as seen from its folder)"),
        ("scans/a.png,7\nscans/b.png,seven", "labels.csv: seven is none of the classes (0, 1, 2, 3, 4, ...)"),
    ):
        (tmp_path / "labels.csv").write_text(f"file,label\n{listed}\n")
        caplog.clear()
        found = known_labels(files, [str(digit) for digit in range(10)])
        assert found[0] == (None if "none of these" in str(told) else 7)
        assert (told in caplog.text) if told else not caplog.text


def test_intervals_are_of_samples_in_which_both_classes_are(tmp_path):
    labels = torch.tensor([1, 1] + 18 * [0])
    probabilities = torch.stack([1 - labels * 0.8 - 0.1, labels * 0.8 + 0.1], 1)
    perfect = Evaluation("test", None, labels, torch.ones(20), probabilities, 0.5, [])
    intervals = perfect.intervals()
    for name in ("auroc", "average_precision", "sensitivity", "specificity", "accuracy", "kappa"):
        assert intervals[f"test/{name}"] == (1, 1), name


def test_photographs_are_for_networks_of_digits(run, train, script, tiny_data, tmp_path):
    Image.new("RGB", (60, 60), "white").save(tmp_path / "a.png")
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    assert (
        "images_as=scan: choose one of auto, photo, mnist"
        in script("evaluate.py", ckpt, "images=a.png", "images_as=scan").error
    )
    assert (
        train("data=fashion_mnist", "data.batch_size=50", "model=mlp", "model.hidden=[8]", "hydra.run.dir=shoes").code
        == 0
    )
    ckpt = f"ckpt={tmp_path}/shoes/checkpoints/best.ckpt"
    assert (
        "images_as=photo is for networks of the ten digits"
        in script("evaluate.py", ckpt, "images=a.png", "images_as=photo").error
    )
    assert script("evaluate.py", ckpt, "images=a.png", "hydra.run.dir=seen").code == 0


def test_bad_input(run, script, tiny_data, tmp_path):
    best = run / "checkpoints" / "best.ckpt"
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    (tmp_path / "short.ckpt").write_bytes(best.read_bytes()[:5000])
    torch.save({"state_dict": {}, "epoch": 1}, tmp_path / "foreign.ckpt")
    for arguments, parts in (
        (["ckpt=none.ckpt"], ["none.ckpt", "no such file"]),
        ([f"ckpt={tmp_path}/short.ckpt"], ["short.ckpt", "truncated"]),
        ([f"ckpt={tmp_path}/foreign.ckpt"], ["foreign.ckpt", "not a checkpoint of imgclf"]),
        ([], ["ckpt=PATH is missing"]),
        ([f"ckpt={run}"], ["a folder", "checkpoints/best.ckpt"]),
        ([f"ckpt={best}", "images=pictures/[ab]*.png"], ["cannot read images=pictures/[ab]*.png", "quote"]),
        ([f"ckpt={best}", "data=digits", "data.variation=rot"], ["data=noisy_digits"]),
        ([f"ckpt={best}", "split=tset"], ["split=tset", "train, val, test"]),
        ([f"ckpt={best}", "data=emnist", f"data_dir={tiny_data}"], ["47 classes", "10"]),
        ([f"ckpt={best}", "data.variation=upside-down"], ["upside-down", "back-image"]),
        ([f"ckpt={best}", "data.variant=rot"], ["data.variant", "did you mean data.variation"]),
        ([f"ckpt={best}", "data=nothing"], ["data/nothing", "noisy_mnist"]),
        ([f"ckpt={best}", "accelerator=gpu"], ["accelerator=gpu", "accelerator=cpu"]),
        ([f"ckpt={best}", f"hydra.run.dir={run}"], ["is not empty"]),
    ):
        line = script("evaluate.py", *arguments).error
        for part in parts:
            assert part in line
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_checkpoint_that_does_not_say_its_data_or_names_foreign_ones(run, script, tmp_path):
    checkpoint = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    for data, message in (
        (None, "does not say what data"),
        ({"_target_": "os.system"}, r"refused: it names os.system"),
    ):
        checkpoint["imgclf"]["data"] = data
        torch.save(checkpoint, tmp_path / "a.ckpt")
        assert message in script("evaluate.py", f"ckpt={tmp_path}/a.ckpt").error
        named = ("data=noisy_digits", "data.variation=rot", f"hydra.run.dir=named{data is None}")
        assert script("evaluate.py", f"ckpt={tmp_path}/a.ckpt", *named).code == 0
        assert metrics(tmp_path / f"named{data is None}") == metrics(run)
    assert "leave data= out" in script("evaluate.py", f"ckpt={tmp_path}/a.ckpt", *named[:2], "split=val").error


def test_images_that_were_trained_on_are_in_no_other_split(run, script):
    ckpt = f"ckpt={run / 'checkpoints' / 'best.ckpt'}"
    for option in ("data.split_seed=1", "data.val_fraction=0.2"):
        error = script("evaluate.py", ckpt, "split=val", option).error
        assert f"{option}: the val images may be among those that" in error
        assert script("evaluate.py", ckpt, option).code == 0  # the test images are the official ones
    assert script("evaluate.py", ckpt, "split=val", "data.batch_size=7", "data.variation=rot").code == 0
    larochelle = "data=noisy_mnist", "data.protocol=larochelle"
    assert "data.protocol=larochelle has test images that" in script("evaluate.py", ckpt, *larochelle).error
    assert "ckpt=[A,B] for their mean" in script("evaluate.py", "-m", "ckpt=a,b").error


def test_data_of_another_shape(run, script, monkeypatch):
    from imgclf.data.digits import Digits

    load = Digits.load

    def larger(self, split):
        images, labels = load(self, split)
        return images.repeat(1, 1, 2, 2), labels

    monkeypatch.setattr(Digits, "load", larger)
    line = script("evaluate.py", f"ckpt={run}/checkpoints/best.ckpt", "data=digits").error
    assert "(1, 56, 56)" in line
    assert "(1, 28, 28)" in line

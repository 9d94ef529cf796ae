import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from imgclf.data.noisy import NoisyImages
from imgclf.evaluation.known_labels import known_labels


def test_predict_images(run, script, tmp_path):
    images = NoisyImages(base="digits", variation="rot").eval_dataset("test")[:5][0]
    folder = tmp_path / "pictures of digits"
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image[0].numpy()).save(folder / f"{i}.png")
    (folder / "broken.png").write_text("no picture")
    for name in ("a.mov", "b.mov"):
        (folder / name).touch()
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, f"images='{folder}'", "hydra.run.dir=predicted")
    assert result.code == 0, result.err
    assert "broken.png" in result.out
    with (tmp_path / "predicted" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [*(str(folder / f"{i}.png") for i in range(5)), str(folder / "broken.png")]
    assert [row["label"] for row in rows] == [""] * 6
    assert rows[-1]["class_name"].startswith("not a readable image")
    assert {rows[-1][column] for column in ("predicted", "probability", "p(0)", "p(9)")} == {""}
    for row in rows[:-1]:
        shares = [float(row[f"p({digit})"]) for digit in range(10)]
        assert sum(shares) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == pytest.approx(max(shares))
    assert "1 of 6 files cannot be read" in result.out
    assert "passed over 2 files that are not read as images: 2 .mov" in result.out
    unsure = script("evaluate.py", ckpt, f"images='{folder}'", "unsure_below=1", "hydra.run.dir=unsure")
    assert unsure.code == 0, unsure.err
    with (tmp_path / "unsure" / "predictions.csv").open() as file:
        assert [row["class_name"] for row in csv.DictReader(file)][:5] == ["unsure"] * 5

    for pattern, message in (
        (f"{folder}/*.mov", "no image"),
        (f"{folder}/broken.png", "none of 1 files is a readable image"),
        ("nowhere", "no image"),
    ):
        assert message in script("evaluate.py", ckpt, f"images='{pattern}'").error
    assert (
        "unsure_below=80: give a number" in script("evaluate.py", ckpt, f"images='{folder}'", "unsure_below=80").error
    )


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
        "images/unreadable": 0,
        "images/labelled": known,
        "images/accuracy": pytest.approx(right / known),
    }
    assert f"images with a known label: {known}" in result.out
    left = {path.stem for path in (tmp_path / "predicted" / "figures").iterdir()}
    assert left == {"predictions", "confusion_matrix"}


def test_labels_that_are_not_used_are_told(tmp_path, caplog):
    files = [tmp_path / "scans" / "a.png", tmp_path / "scans" / "b.png"]
    (tmp_path / "scans").mkdir()
    for file in files:
        Image.new("L", (5, 5)).save(file)
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


def test_a_page_has_a_row_for_each_digit(run, script, tmp_path):
    page = Image.new("L", (200, 120), 255)
    for left in (40, 110):
        page.paste(0, (left, 30, left + 8, 90))
    page.save(tmp_path / "page.png")
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, f"images='{tmp_path / 'page.png'}'", "several=true", "hydra.run.dir=page")
    assert result.code == 0, result.err
    with (tmp_path / "page" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["left"]) for row in rows] == pytest.approx([40, 110], abs=4)
    assert [float(row["bottom"]) for row in rows] == pytest.approx([90, 90], abs=4)
    assert (tmp_path / "page" / "figures" / "page_1.png").is_file()
    without = script("evaluate.py", ckpt, "several=true")
    assert without.code == 1
    assert "several=true" in without.err

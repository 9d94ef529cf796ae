import io
import json

import numpy as np
import pytest
from PIL import Image

from imgclf.evaluation.html_report import MAX_FIGURES_BYTES, embedded_figures, run_page
from imgclf.evaluation.model_card import limits
from tests.conftest import tiny_images
from tests.evaluation.page import Page

NAMES = ("<script>alert(1)<", 'a"b & <img src=x>', "c")
LARGEST = 3_000_000
TIMES = ("train/seconds", "train/images_per_second")


@pytest.fixture
def named_run(script, tmp_path):
    """The folder of a run on image files whose classes have names that would be a page's tags."""
    images, labels = tiny_images(90, 3)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = tmp_path / "photos" / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"<b>{i}.png")
    data = ("data=image_folder", "data.root=photos", "data.image_size=28", "data.channels=1", "data.batch_size=10")
    model = ("model=mlp", "model.hidden=[8]", "trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=none")
    result = script("train.py", *data, *model, "hydra.run.dir=run")
    assert result.code == 0, result.err
    assert result.out.split()[-2:] == ["report:", str(tmp_path / "run" / "report.html")]
    return tmp_path / "run"


def check_self_contained(text: str, metrics: dict) -> Page:
    """Every number is that of metrics.json, nothing is loaded, and no name became a tag."""
    page = Page(text)
    figures = {name: "undefined" if value is None else f"{value:.4f}" for name, value in metrics.items()}
    assert page.cells
    assert page.cells == {name: figures[name] for name in page.cells}
    assert all(address.startswith("data:") for address in page.addresses())
    assert all(Image.open(io.BytesIO(image)).format == "PNG" for image in page.images())
    assert {"script", "iframe", "object"}.isdisjoint(tag for tag, _ in page.tags)
    assert "url(" not in text
    assert "@import" not in text
    assert len(text.encode()) < LARGEST
    return page


@pytest.mark.draws
def test_a_run_s_page_has_its_numbers_and_escapes_its_names(named_run, script, tmp_path):
    metrics = json.loads((named_run / "metrics.json").read_text())
    page = check_self_contained((named_run / "report.html").read_text(), metrics)
    assert page.cells.keys() == metrics.keys() - {*TIMES, "epochs", "best_epoch"}
    assert all(name in page.text for name in NAMES)
    low, high = json.loads((named_run / "intervals.json").read_text())["test/accuracy"]
    assert f"{low:.4f} to {high:.4f}" in page.text
    assert f"{metrics['test/accuracy']:.1%} of " in page.text
    assert "python train.py data=image_folder data.root=photos" in page.text
    assert "hydra.run.dir=" not in page.text.partition("config.yaml")[0]
    with_mistakes = (named_run / "mistakes.csv").read_text().count("\n") > 1
    assert len(page.images()) == len(list((named_run / "figures").iterdir())) - (not with_mistakes)
    assert "only" in page.text  # the warning of a validation part of few images

    evaluated = script("evaluate.py", f"ckpt={named_run}/checkpoints/best.ckpt", "corruption=all", "hydra.run.dir=e")
    assert evaluated.code == 0, evaluated.err
    assert "report.html" in evaluated.out
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    page = check_self_contained((tmp_path / "e" / "report.html").read_text(), metrics)
    assert "Accuracy under noise" in page.text
    undefined = dict.fromkeys(metrics)
    assert set(Page(run_page(tmp_path / "e", undefined)).cells.values()) == {"undefined"}


def test_large_figures_are_made_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 900, 3), dtype=np.uint8)
    files = {str(number): tmp_path / f"{number}.png" for number in range(3)}
    for file in files.values():
        Image.fromarray(noise).save(file)
    assert sum(file.stat().st_size for file in files.values()) > 2 * MAX_FIGURES_BYTES
    figures = embedded_figures(files)
    assert sum(len(figure["src"]) for figure in figures.values()) < MAX_FIGURES_BYTES * 4 / 3 + 100
    assert figures["0"]["width"] == 900


def test_limits_name_what_was_never_seen_or_rarely_tested():
    facts = {"class_names": ["a", "b", "c"], "images": {"train": [9, 0, 9], "test": [50, 0, 3]}}
    rows = [{"class": "a", "images": "50", "recall": "1"}, {"class": "c", "images": "3", "recall": "0.5"}]
    text = " ".join(limits(facts, "test", {"test/accuracy": 1.0}, {"test/accuracy": (0.9, 1.0)}, rows))
    assert "100.0% of 53 test images were classified rightly (95% interval 90.0% to 100.0%)" in text
    assert "still allows an error rate of 5.7%" in text
    assert "never seen an image of b" in text
    assert "no test image of b" in text
    assert "test images are of c" in text
    assert "most often is c: 50.0% of its 3 images" in text
    assert "Training chose its epoch" in " ".join(
        limits({**facts, "images": {"val": [1, 1, 1]}}, "val", {"val/accuracy": None}, {}, rows)
    )

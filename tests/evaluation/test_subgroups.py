import csv
import json
import re

import pytest
from sklearn.metrics import accuracy_score, recall_score

from imgclf.data.digits import Digits
from imgclf.data.image_folder import ImageFolder
from imgclf.evaluation.subgroups import find_subgroups

QUICK = ("data.image_size=20", "model=mlp", "model.hidden=[8]", "trainer.max_epochs=2")


def read(file):
    with file.open() as table:
        return list(csv.DictReader(table))


@pytest.fixture
def table(tiny_data):
    """A label table beside the X-rays, with a column sex that is empty for one image."""
    folder, rows = tiny_data / "chest_xray", []
    for split in ("train", "test"):
        for number, file in enumerate(sorted((folder / split).rglob("*.jpeg"))):
            patient = number // 4
            sex = "" if split == "test" and number == 0 else "fm"[patient % 2]
            rows.append(f"{file.relative_to(folder)},{file.parent.name},{split},{sex},{patient},{split}{patient}")
    path = folder / "people.csv"
    path.write_text("\n".join(["image,label,split,sex,site [a],patient", *rows]) + "\n")
    yield path
    path.unlink()


def test_metrics_for_each_value_of_a_column(train, script, table, tiny_data, tmp_path):
    data = ("data=image_folder", f"data.labels={table}", f"data.root={table.parent}", "data.channels=1")
    result = train(*data, *QUICK, "hydra.run.dir=run")
    assert result.code == 0, result.err
    ckpt = f"ckpt={tmp_path}/run/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, "by=sex", "hydra.run.dir=out")
    assert result.code == 0, result.err
    assert "test by sex" in result.out
    rows = {row["value"]: row for row in read(tmp_path / "out" / "subgroups.csv")}
    assert list(rows) == ["", "f", "m"]
    sexes = {row["image"]: row["sex"] for row in read(table)}
    answers = read(tmp_path / "out" / "predictions.csv")
    for value, row in rows.items():
        part = [each for each in answers if sexes[each["file"].partition("chest_xray/")[2]] == value]
        labels, predicted = ([int(each[column]) for each in part] for column in ("label", "predicted"))
        assert int(row["images"]) == len(part)
        assert float(row["accuracy"]) == pytest.approx(accuracy_score(labels, predicted))
        if set(labels) == {0, 1}:
            assert float(row["sensitivity"]) == pytest.approx(recall_score(labels, predicted))
            assert float(row["accuracy_low"]) <= float(row["accuracy"]) <= float(row["accuracy_high"])
        else:
            assert row["auroc"] == ""
    assert sum(int(row["images"]) for row in rows.values()) == len(answers) == 30
    section = (tmp_path / "out" / "report.html").read_text().partition("Subgroups (test by sex)")[2]
    for value, row in rows.items():
        figures = "".join(re.findall(r">([^<>]+)<", section.partition(f'name">{value or "(none)"}<')[2])[:3])
        assert figures.startswith(f"{row['images']}{float(row['accuracy']):.4f}")

    assert script("evaluate.py", ckpt, "by=site [a]", "hydra.run.dir=sites").code == 0  # a column before a pattern
    error = script("evaluate.py", ckpt, "by=age", "hydra.run.dir=bad").error
    assert all(part in error for part in ("by=age", "people.csv has no such column", "sex, site [a]", "no path")), error
    assert "images" in script("evaluate.py", ckpt, "by=sex", "images=a.png", "hydra.run.dir=bad").error
    assert not (tmp_path / "bad").exists()


def test_a_pattern_in_paths_divides_too(train, script, tiny_data, tmp_path):
    assert train("data=chest_xray", *QUICK, "hydra.run.dir=run").code == 0
    own = (f"ckpt={tmp_path}/run/checkpoints/best.ckpt", f"data_dir={tiny_data}")
    result = script("evaluate.py", *own, r"by=(bacteria|NORMAL2|IM)[-_]\d", "hydra.run.dir=out")
    assert result.code == 0, result.err
    rows = {row["value"]: int(row["images"]) for row in read(tmp_path / "out" / "subgroups.csv")}
    assert rows == {"IM": 15, "bacteria": 15}
    assert script("evaluate.py", *own, "by=NORMAL2", "hydra.run.dir=two").code == 0
    rows = {row["value"]: int(row["images"]) for row in read(tmp_path / "two" / "subgroups.csv")}
    assert rows.keys() == {"", "NORMAL2"}
    values = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert values == json.loads((tmp_path / "out" / "metrics.json").read_text())


def test_bad_input(tiny_data, tmp_path):
    with pytest.raises(ValueError, match="by=sex: it is for image files"):
        find_subgroups(Digits(), "test", "sex")
    data = ImageFolder("chest_xray", image_size=20, channels=1, data_dir=tiny_data, cache_dir=tmp_path)
    with pytest.raises(ValueError, match=r"by=\(: it is no regular expression"):
        find_subgroups(data, "test", "(")
    with pytest.raises(ValueError, match="by=chest_xray: it is found in no path"):  # nor in what all paths share
        find_subgroups(data, "test", "chest_xray")

import csv
import json
from statistics import fmean

import pytest

from imgclf.transforms.corruptions import CORRUPTIONS
from tests.evaluation.conftest import metrics


def test_every_corruption_in_a_table_and_one_alone_agree(run, script, tmp_path):
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, "corruption=all", "hydra.run.dir=all")
    assert result.code == 0, result.err
    with (tmp_path / "all" / "corruptions.csv").open() as file:
        table = {(row["corruption"], int(row["severity"])): float(row["accuracy"]) for row in csv.DictReader(file)}
    assert list(table) == [(corruption, severity) for corruption in CORRUPTIONS for severity in (1, 2, 3, 4, 5)]
    values = metrics(tmp_path / "all")
    assert metrics(run).items() <= values.items()
    assert values["test/corrupted_accuracy"] == pytest.approx(fmean(table.values()))
    assert values["test/accuracy/fog"] == pytest.approx(fmean(table["fog", s] for s in range(1, 6)))
    assert (tmp_path / "all" / "figures" / "corruptions.png").exists()

    result = script("evaluate.py", ckpt, "corruption=gaussian_noise", "severity=5", "hydra.run.dir=one")
    assert result.code == 0, result.err
    assert metrics(tmp_path / "one")["test/accuracy"] == pytest.approx(table["gaussian_noise", 5])
    assert json.loads((tmp_path / "one" / "metrics.json").read_text()).keys() == metrics(run).keys()


def test_bad_input(run, script, tmp_path):
    ckpt = f"ckpt={run}/checkpoints/best.ckpt"
    for given, named in (
        (["corruption=rain"], ["corruption=rain", "all", "spatter"]),
        (["corruption=fog", "severity=6"], ["severity=6", "1 to 5"]),
        (["corruption=fog", "images=a.png"], ["corruption=fog", "images"]),
    ):
        result = script("evaluate.py", ckpt, *given, "hydra.run.dir=bad")
        assert result.code == 1
        assert all(part in result.error for part in named), result.error
    assert not (tmp_path / "bad").exists()

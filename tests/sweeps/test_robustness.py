import json

import pytest

from imgclf.core.files import read_csv
from imgclf.transforms.corruptions import CORRUPTIONS
from tests.conftest import SMALL


def test_robustness_evaluates_every_network_on_every_variation(train, tmp_path):
    given = (*SMALL, "data=noisy_mnist", "data.variation=basic,back-rand", "seed=1,2", "trainer.max_epochs=3")
    train("-m", "sweep=robustness", *given, "hydra.sweep.dir=sweep").ok()
    table = {row.pop("trained on"): row for row in read_csv(tmp_path / "sweep" / "robustness.csv")}
    assert list(table) == ["basic", "back-rand"]
    assert all(list(row) == ["basic", "back-rand"] for row in table.values())
    for i, variation in enumerate(table):
        own = [json.loads((tmp_path / "sweep" / str(2 * i + k) / "metrics.json").read_text()) for k in range(2)]
        mean = sum(metrics["test/accuracy"] for metrics in own) / 2
        assert float(table[variation][variation]) == pytest.approx(mean)
    assert table["basic"]["basic"] != table["basic"]["back-rand"]
    assert (tmp_path / "sweep" / "robustness.png").exists()


def test_robustness_is_refused_for_data_without_variations(train, tmp_path):
    result = train("-m", "sweep=robustness", "data=mnist", "hydra.sweep.dir=sweep")
    assert "data.variation" in result.error
    assert not list(tmp_path.glob("sweep/*/*"))


def test_robustness_can_span_the_corruptions(train, tmp_path):
    given = (*SMALL, "data=digits", "model=mlp", "seed=1,2", "cross_evaluate=corruption", "hydra.sweeper.params=null")
    train("-m", "sweep=robustness", *given, "hydra.sweep.dir=sweep").ok()
    (row,) = read_csv(tmp_path / "sweep" / "robustness.csv")
    assert list(row)[1:] == list(CORRUPTIONS)
    assert all(0 <= float(row[corruption]) <= 1 for corruption in CORRUPTIONS)

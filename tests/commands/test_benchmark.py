import json

import pytest
import torch

from imgclf import benchmark
from imgclf.data.torchvision_data import TorchvisionImages
from imgclf.transforms.variations import Variation

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(benchmark, "IMAGES", 300)


@pytest.mark.parametrize("words", [["fast"], ["quick", "full"], ["to=a.json", "1"]])
def test_what_it_does_not_take_is_refused(words):
    with pytest.raises(ValueError, match="takes quick or full"):
        benchmark.main(words)


def test_no_file_is_overwritten(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("mine")
    with pytest.raises(FileExistsError, match="name a new file"):
        benchmark.main([f"to={file}"])
    assert file.read_text() == "mine"


def test_figures_become_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "benchmark", lambda full: {"start": [{"seconds": 2.0 if full else 1.0}]})
    benchmark.main(["full", f"to={tmp_path / 'a.json'}"])
    assert json.loads((tmp_path / "a.json").read_text()) == {"start": [{"seconds": 2.0}]}


def test_made_up_images_are_read_as_the_data_sets_are(tmp_path):
    benchmark.write_images(tmp_path, 300)
    data = TorchvisionImages("MNIST", str(tmp_path))
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [270, 30, 50]


def test_evaluation_is_measured_for_both_networks(tmp_path):
    benchmark.write_images(tmp_path / "data", 300)
    rows = benchmark._evaluation(tmp_path, CPU, 1)
    assert [row["network"] for row in rows] == ["cnn", "mlp"]
    assert all(row["ratio"] == pytest.approx(row["evaluate, images/s"] / row["by hand, images/s"]) for row in rows)


@pytest.mark.parametrize("mixed", ["32-true", "bf16-mixed"])
def test_the_loop_by_hand_trains_the_recipe_s_network(mixed):
    config = {
        "model": {"_target_": "imgclf.models.mlp.MLP", "hidden": [16]},
        "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.01, "fused": True},
        "trainer": {"precision": mixed},
        "data": {"batch_size": 50},
    }
    loop, watch = benchmark.ByHand(config, CPU, Variation("back-rand")), benchmark.Stopwatch(CPU)
    before = [parameter.clone() for parameter in loop.network.parameters()]
    assert loop.epoch(watch) > 0
    assert all(not torch.equal(a, b) for a, b in zip(before, loop.network.parameters(), strict=True))
    assert loop.optimizer.state[loop.network.layers[-1].weight]["step"] == 6
    assert tuple(watch.seconds) == loop.PHASES


def test_variations_are_measured(monkeypatch):
    monkeypatch.setattr(benchmark, "VARIATIONS", ("basic", "back-rand"))
    rows = benchmark._variations(CPU)
    assert [row["variation"] for row in rows] == ["back-rand"]
    assert all(row["images/s"] > 0 for row in rows)


def test_a_run_of_its_own_is_read_and_its_failure_told(tmp_path):
    benchmark.write_images(tmp_path / "data", 300)
    recipe = ("data=mnist", "model=mlp", "trainer.max_epochs=2", "evaluate_on=[val]", "trainer.accelerator=cpu")
    run = benchmark.train(tmp_path, *recipe, data_dir=tmp_path / "data")
    assert [row["epoch"] for row in run["rows"]] == [1, 2]
    assert run["config"]["data"]["batch_size"] == 128
    assert run["metrics"]["epochs"] == 2
    assert run["seconds"] > run["metrics"]["train/seconds"]
    assert 100 < run["memory"] < 4000
    with pytest.raises(OSError, match="max_epoch"):
        benchmark.train(tmp_path, "trainer.max_epoch=1")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_growth_compares_times_of_one_round(tmp_path, monkeypatch):
    sizes = []

    def train(place, *options, data_dir):
        sizes.append(len(TorchvisionImages("MNIST", str(data_dir)).dataset("train")))
        slow = 1 + (len(sizes) - 1) // 5  # every round is slower than the one before
        ends = [100, 100 + slow * sizes[-1], 100 + 2 * slow * sizes[-1]]
        return {"rows": [{"seconds": end} for end in ends], "memory": 500 + sizes[-1]}

    monkeypatch.setattr(benchmark, "train", train)
    monkeypatch.setattr(benchmark, "IMAGES", 400)
    rows = benchmark._growth(tmp_path, 2)
    assert sizes == [90, 180, 360, 720, 1440, 1440, 720, 360, 180, 90]
    assert [row["training images"] for row in rows] == sizes[:5]
    assert [row["against the smallest, an image"] for row in rows] == pytest.approx([1] * 5)
    assert rows[-1]["seconds an epoch"] == pytest.approx(1.5 * 1440)
    assert rows[-1]["peak MiB"] == 1940

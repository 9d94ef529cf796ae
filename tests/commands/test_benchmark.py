import json

import pytest
import torch

from imgclf import benchmark
from imgclf.data.torchvision_data import TorchvisionImages
from imgclf.training.by_hand import ByHand
from imgclf.training.random_runs import train, write_images
from imgclf.transforms.variations import Variation
from tests import speed

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
    write_images(tmp_path, 300)
    data = TorchvisionImages("MNIST", str(tmp_path))
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [270, 30, 50]


def test_evaluation_is_measured_for_both_networks(tmp_path):
    write_images(tmp_path / "data", 300)
    rows = benchmark.evaluation(tmp_path, CPU, 1)
    assert [row["network"] for row in rows] == ["cnn", "mlp"]
    assert all(row["ratio"] == pytest.approx(row["evaluate, images/s"] / row["by hand, images/s"]) for row in rows)


@pytest.mark.parametrize("mixed", ["32-true", "bf16-mixed"])
def test_the_loop_by_hand_trains_the_recipe_s_network(mixed):
    config = {
        "model": {"_target_": "imgclf.models.mlp.MLP", "hidden": [16], "dropout": 0.0},
        "loss": {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.1},
        "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.01, "fused": True},
        "trainer": {"precision": mixed},
        "data": {"batch_size": 50},
    }
    loop, watch = ByHand(config, CPU, 300), speed.Stopwatch(CPU)
    before = [parameter.clone() for parameter in loop.network.parameters()]
    assert loop.epoch(speed.vary(loop, Variation("back-rand"), watch), watch.lap) > 0
    assert all(not torch.equal(a, b) for a, b in zip(before, loop.network.parameters(), strict=True))
    assert loop.optimizer.state[loop.network.layers[-1].weight]["step"] == 6
    assert tuple(watch.seconds) == speed.PHASES


def test_variations_are_measured(monkeypatch):
    monkeypatch.setattr(speed, "VARIATIONS", ("basic", "back-rand"))
    rows = speed.variations(CPU)
    assert [row["variation"] for row in rows] == ["back-rand"]
    assert all(row["images/s"] > 0 for row in rows)


def test_a_run_of_its_own_is_read_and_its_failure_told(tmp_path):
    write_images(tmp_path / "data", 300)
    recipe = ("data=mnist", "model=mlp", "trainer.max_epochs=2", "evaluate_on=[val]", "trainer.accelerator=cpu")
    run = train(tmp_path, *recipe, f"data_dir={tmp_path / 'data'}")
    assert [row["epoch"] for row in run["rows"]] == [1, 2]
    assert run["config"]["data"]["batch_size"] == 128
    assert run["metrics"]["epochs"] == 2
    assert run["seconds"] > run["metrics"]["train/seconds"]
    assert 100 < run["memory"] < 4000
    with pytest.raises(OSError, match="max_epoch"):
        train(tmp_path, "trainer.max_epoch=1")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_growth_compares_times_of_one_round(tmp_path, monkeypatch):
    sizes = []

    def train(place, *options):
        (data_dir,) = (option.partition("=")[2] for option in options if option.startswith("data_dir="))
        sizes.append(len(TorchvisionImages("MNIST", data_dir).dataset("train")))
        slow = 1 + (len(sizes) - 1) // 5  # every round is slower than the one before
        ends = [100, 100 + slow * sizes[-1], 100 + 2 * slow * sizes[-1]]
        return {"rows": [{"seconds": end} for end in ends], "memory": 500 + sizes[-1]}

    monkeypatch.setattr(speed, "train", train)
    monkeypatch.setattr(benchmark, "IMAGES", 400)
    rows = benchmark.combined([speed.growth(tmp_path, backwards) for backwards in (False, True)])
    assert sizes == [90, 180, 360, 720, 1440, 1440, 720, 360, 180, 90]
    assert [row["training images"] for row in rows] == sizes[:5]
    assert [row["against the smallest, an image"] for row in rows] == pytest.approx([1] * 5)
    assert rows[-1]["seconds an epoch"] == pytest.approx(1.5 * 1440)
    assert rows[-1]["peak MiB"] == 1940


def test_every_table_is_measured_and_averaged_over_rounds(tmp_path, monkeypatch, capsys):
    calls = []

    def rows(name):
        def measure(*arguments, **options):
            calls.append(name)
            return [{"what": name, "seconds": calls.count(name)}]

        return measure

    for name in ("training", "evaluation", "accuracy"):
        monkeypatch.setattr(benchmark, name, rows(name))
    for name in ("start", "phases", "variations", "growth"):
        monkeypatch.setattr(speed, name, rows(name))
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    monkeypatch.setenv("IMGCLF_DATA_DIR", str(tmp_path))
    figures = benchmark.benchmark()
    assert figures["training"] == [{"what": "training", "seconds": 2}]  # the median of three rounds
    assert figures["accuracy"] == [{"what": "accuracy", "seconds": 1}]
    assert list(figures) == ["machine", "training", "evaluation", "accuracy"]
    assert "Evaluation" in capsys.readouterr().out
    figures = speed.main()
    assert figures["growth with the data"] == [{"what": "growth", "seconds": 2}]
    assert list(figures) == ["machine", "start", "phases of a training step", "variations", "growth with the data"]
    assert "Variations" in capsys.readouterr().out


def test_recipes_and_phases_are_measured_against_the_loop_by_hand(tmp_path, monkeypatch):
    config = {
        "model": {"_target_": "imgclf.models.mlp.MLP", "hidden": [16], "dropout": 0.0},
        "loss": {"_target_": "torch.nn.CrossEntropyLoss", "label_smoothing": 0.0},
        "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.01},
        "trainer": {"precision": "32-true"},
        "data": {"batch_size": 50},
    }
    run = {"config": config, "rows": [{"images_per_second": number} for number in (1, 1000, 3000)], "memory": 700}
    for module in (benchmark, speed):
        monkeypatch.setattr(module, "train", lambda *arguments: run)
    write_images(tmp_path / "data", 300)
    rows = benchmark.training(tmp_path, CPU)
    assert [row["recipe"] for row in rows] == ["mnist_cnn", "fashion_mlp"]
    for row in rows:
        assert row["train.py, images/s"] == 2000
        assert row["ratio"] == pytest.approx(2000 / row["by hand"])
        assert row["ratio to that"] == pytest.approx(2000 / row["by hand, image by image"])
        assert row["peak MiB"] == 700
    rows = speed.phases(tmp_path, CPU)
    assert [row["phase"] for row in rows] == [*speed.PHASES, "framework"]
    assert sum(row["share of the step"] for row in rows) == pytest.approx(1)
    assert sum(row["ms"] for row in rows) == pytest.approx(1000 * 50 / 2000)

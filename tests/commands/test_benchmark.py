import json
import sys
import time
from functools import partial

import pytest
import torch
from torch.nn import CrossEntropyLoss
from torch.optim import Adam

from imgclf import benchmark
from imgclf.benchmark import train
from imgclf.data.torchvision_data import TorchvisionImages
from imgclf.models.mlp import MLP
from imgclf.training.by_hand import ByHand, write_mnist
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
    write_mnist(tmp_path, 300)
    data = TorchvisionImages("MNIST", str(tmp_path))
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [270, 30, 50]


def test_evaluation_is_measured_for_both_networks(tmp_path):
    write_mnist(tmp_path / "data", 300)
    rows = benchmark.evaluation(tmp_path, CPU)
    assert [row["network"] for row in rows] == ["cnn", "mlp"]
    assert all(row["ratio"] == pytest.approx(row["images/s"] / row["by hand"]) for row in rows)


@pytest.mark.parametrize("mixed", [False, True])
def test_the_loop_by_hand_trains(mixed):
    images, labels = torch.randint(0, 256, (300, 1, 28, 28), dtype=torch.uint8), torch.arange(300) % 10
    loop = ByHand(MLP(hidden=[16]), partial(Adam, lr=0.01), CrossEntropyLoss(), 50, mixed, images, labels)
    watch, before = speed.Stopwatch(CPU), [parameter.clone() for parameter in loop.network.parameters()]
    assert loop.epoch(speed.vary(loop, Variation("back-rand"), watch), watch.lap) > 0
    assert all(not torch.equal(a, b) for a, b in zip(before, loop.network.parameters(), strict=True))
    assert loop.optimizer.state[loop.network.layers[-1].weight]["step"] == 6
    assert tuple(watch.seconds) == speed.PHASES


def test_a_command_is_waited_for_until_it_says_so(tmp_path):
    says = "print('a'); print('   folder:  b', flush=True); import time; time.sleep(100)"
    begin = time.perf_counter()
    benchmark.until("folder:", (sys.executable, "-c", says), tmp_path)
    benchmark.until("folder:", (sys.executable, "-c", "print('nothing')"), tmp_path)
    assert time.perf_counter() - begin < 50


def test_photographs_are_read_by_every_way(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "FILES", 3)
    rows = benchmark.combined([benchmark.files(tmp_path, CPU, turn) for turn in range(2)])
    assert [row["what"] for row in rows] == ["predict files", "build the decode cache"]
    assert all(row["ratio"] > 0 for row in rows)
    assert len(list(tmp_path.glob("cache*/*.npy"))) == 2  # each turn builds one


def test_the_machine_is_named():
    assert {"processor", "instruction sets", "cores", "threads", "load", "torch"} <= set(benchmark.machine(CPU))


def test_variations_are_measured(monkeypatch):
    monkeypatch.setattr(speed, "VARIATIONS", ("basic", "back-rand"))
    rows = speed.variations(CPU)
    assert [row["variation"] for row in rows] == ["back-rand"]
    assert all(row["images/s"] > 0 for row in rows)


def test_a_run_of_its_own_is_read_and_its_failure_told(tmp_path):
    write_mnist(tmp_path / "data", 300)
    recipe = ("data=mnist", "model=mlp", "trainer.max_epochs=2", "evaluate_on=[val]", "trainer.accelerator=cpu")
    run = train(tmp_path, *recipe, f"data_dir={tmp_path / 'data'}")
    assert [row["epoch"] for row in run["rows"]] == [1, 2]
    assert run["by hand"] == {}
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

    for name in ("start", "training", "evaluation", "files", "accuracy"):
        monkeypatch.setattr(benchmark, name, rows(name))
    for name in ("phases", "variations", "growth"):
        monkeypatch.setattr(speed, name, rows(name))
    (tmp_path / "MNIST" / "raw").mkdir(parents=True)
    monkeypatch.setenv("IMGCLF_DATA_DIR", str(tmp_path))
    figures = benchmark.benchmark()
    assert list(figures) == ["machine", "start", "training", "evaluation", "files"]
    assert figures["evaluation"] == [{"what": "evaluation", "seconds": 2}]  # the median of three rounds
    figures = benchmark.benchmark(full=True)
    assert list(figures) == ["machine", "start", "training", "evaluation", "files", "accuracy"]
    assert figures["accuracy"] == [{"what": "accuracy", "seconds": 3}]  # of five seeds
    assert "Evaluation" in capsys.readouterr().out
    figures = speed.main()
    assert figures["growth with the data"] == [{"what": "growth", "seconds": 2}]
    assert list(figures) == ["machine", "phases of a training step", "variations", "growth with the data"]
    assert "Variations" in capsys.readouterr().out


def test_recipes_are_trained_beside_the_loop_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "RECIPES", {"fashion_mlp": 3})
    write_mnist(tmp_path / "data", 600)
    (row,) = benchmark.training(tmp_path)
    assert row["recipe"] == "fashion_mlp"
    assert row["ratio"] == pytest.approx(row["images/s"] / row["by hand"])
    assert row["ratio to that"] == pytest.approx(row["images/s"] / row["one by one"])


def test_phases_are_measured_in_the_loop_by_hand(tmp_path, monkeypatch):
    run = {"rows": [{"images_per_second": number} for number in (1, 1000, 3000)]}
    monkeypatch.setattr(speed, "train", lambda *arguments: run)
    write_mnist(tmp_path / "data", 300)
    rows = speed.phases(tmp_path, CPU)
    assert [row["phase"] for row in rows] == [*speed.PHASES, "framework"]
    assert sum(row["share of the step"] for row in rows) == pytest.approx(1)
    assert sum(row["ms"] for row in rows) == pytest.approx(1000 * 256 / 2000)

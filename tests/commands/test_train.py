import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from imgclf.core.files import read_csv
from imgclf.core.names import METRICS
from tests.conftest import PROJECT, REAL_DATA, SMALL, needs_real_data, options

TIMES = ("train/seconds", "train/images_per_second")


def metrics(folder) -> dict[str, float]:
    values = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in values.items() if name not in TIMES}


def weights(file) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["state_dict"]


@pytest.mark.parametrize("name", options("data"))
def test_every_data_config(name, train, tmp_path):
    root = ["data.root=chest_xray"] if name == "image_folder" else []
    if name == "amat":
        random = np.random.default_rng(0)
        rows = np.concatenate([random.random((200, 784)), random.integers(0, 10, (200, 1))], 1)
        np.savetxt(tmp_path / "a.amat", rows, "%.4g")
        root = ["data.train=a.amat", "data.test=a.amat", "data.val_images=50"]
    result = train(
        f"data={name}", *root, "data.batch_size=50", "model=mlp", "model.hidden=[8]", "hydra.run.dir=run"
    ).ok()
    assert "best.ckpt" in result.out
    assert 0 <= metrics(tmp_path / "run")["test/accuracy"] <= 1


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment(name, train, tmp_path, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # which Lightning sets
    try:
        quick = ("data.batch_size=50", "trainer.deterministic=true", "hydra.run.dir=run")
        if name == "variations_best":
            assert "needs 52,000 training images" in train(f"experiment={name}", *quick).error
            quick += ("data.protocol=full",)
        if name in ("finetune", "chest_xray_pretrained"):
            pytest.importorskip("timm")
            quick += ("data.image_size=32", "model.weights=null")
            quick += ("data.root=chest_xray",) if name == "finetune" else ()
        result = train(f"experiment={name}", *quick)
    finally:
        torch.use_deterministic_algorithms(False)
    assert result.code == 0, result.err
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert config.name == name
    assert "RESULT" not in (PROJECT / "conf" / "experiment" / f"{name}.yaml").read_text()
    header = (PROJECT / "conf" / "experiment" / f"{name}.yaml").read_text().split("name:")[0]
    assert f"python train.py experiment={name}" in header


@pytest.mark.parametrize(
    "choice",
    [
        f"{group}={name}"
        for group in ("optimizer", "scheduler", "augmentation", "trainer", "logger", "callbacks")
        for name in options(group)
        if name != "ddp"  # starts processes of its own: tests/test_distributed.py
    ],
)
def test_every_other_config(choice, train):
    train(*SMALL, choice, "hydra.run.dir=run").ok()


@pytest.mark.parametrize("name", options("model"))
def test_every_model_config(name, train):
    train("data=mnist", "data.batch_size=50", f"model={name}", "hydra.run.dir=run").ok()


@pytest.mark.draws
def test_the_run_folder_holds_everything_the_contract_names(train, tmp_path):
    result = train("hydra.run.dir=run", "data=noisy_digits", "model=cnn", "trainer.max_epochs=3", "seed=7").ok()
    run = tmp_path / "run"
    values = json.loads((run / "metrics.json").read_text())
    names = (*METRICS, "auroc", "calibration_error", *(f"accuracy_at_{percent}" for percent in (80, 90, 95)))
    expected = {f"{split}/{name}" for split in ("train", "val", "test") for name in names}
    assert set(values) == expected | {*TIMES, "best_epoch", "epochs"}
    assert values["epochs"] == 3
    assert 1 <= values["best_epoch"] <= 3
    assert values["test/accuracy"] > 0.6
    assert all(math.isfinite(value) for value in values.values())

    rows = read_csv(run / "metrics.csv")
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    best = max(rows, key=lambda row: (float(row["val/accuracy"]), -float(row["val/loss"])))
    assert values["best_epoch"] == int(best["epoch"])
    assert values["train/images_per_second"] == max(float(row["images_per_second"]) for row in rows)

    for name in ("data", "samples", "curves", "confusion_matrix", "mistakes"):
        with Image.open(run / "figures" / f"{name}.png") as image:
            assert image.width > 600
    environment = json.loads((run / "environment.json").read_text())
    assert environment["seed"] == 7
    assert environment["device"] == "cpu"
    assert environment["versions"]["torch"]
    config = OmegaConf.load(run / "config.yaml")
    assert config.data.seed == 7
    assert "${" not in (run / "config.yaml").read_text()
    assert "epoch 3/3" in (run / "train.log").read_text()
    for name in ("best", "last"):
        assert {"state_dict", "imgclf"} <= torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True).keys()
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2  # whichever was best
    left = {path.name for path in run.iterdir()}
    assert left == {
        *("per_class.csv", "confusion_matrix.csv", "predictions.csv", "mistakes.csv"),
        *("intervals.json", "model_card.json", "report.html"),
        *("metrics.json", "metrics.csv", "config.yaml", "environment.json", "train.log"),
        *("checkpoints", "figures", "tensorboard"),
    }

    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0}).Reload()
    scalars = events.Tags()["scalars"]
    assert {"train/loss", "val/accuracy", "step/loss", "lr", "images_per_second", "result/test/accuracy"} <= set(
        scalars
    )
    drawn = ["samples", "curves", "data", "confusion_matrix", "mistakes", "calibration", "risk_coverage"]
    assert events.Tags()["images"] == drawn
    assert "_hparams_/experiment" in events.summary_metadata
    charts = events.summary_metadata["custom_scalars__config__"]
    assert charts.plugin_data.plugin_name == "custom_scalars"
    (vectors,) = (run / "tensorboard").rglob("tensors.tsv")
    assert len(vectors.read_text().splitlines()) == len((run / "predictions.csv").read_text().splitlines()) - 1
    assert vectors.with_name("sprite.png").exists()
    shown = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"data/variation" in shown
    assert b"optimizer/lr" in shown
    assert b"augmentation/blur" not in shown  # is off

    for line in (
        f"evaluate:  python {PROJECT}/evaluate.py ckpt=run/checkpoints/best.ckpt",
        f"predict:  python {PROJECT}/evaluate.py ckpt=run/checkpoints/best.ckpt images=PATH",
        "model=cnn trainer.max_epochs=3 seed=7 hydra.run.dir=run resume=true",
        "dashboard:  tensorboard --logdir run",
        "report:  run/report.html",
    ):
        assert line in result.out.replace(str(run), "run")


def test_same_seed_same_numbers_another_seed_others(train, tmp_path):
    recipe = ("data=noisy_digits", "model=cnn", "augmentation=affine", "trainer.max_epochs=2")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(*recipe, f"seed={seed}", f"hydra.run.dir={name}").ok()
    assert metrics(tmp_path / "a") == metrics(tmp_path / "b")
    assert metrics(tmp_path / "a") != metrics(tmp_path / "c")
    first, second = (weights(tmp_path / name / "checkpoints" / "last.ckpt") for name in "ab")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_sweep_runs_its_jobs_into_folders_of_their_own(train, tmp_path):
    result = train(
        *("-m", "data=noisy_digits", "model=mlp,cnn", "data.variation=basic,rot,back-rand", "hydra.sweep.dir=sweep")
    ).ok()
    assert "Total params" not in result.out  # the table that Lightning adds by itself
    configs = [OmegaConf.load(tmp_path / "sweep" / str(i) / "config.yaml") for i in range(6)]
    assert all((tmp_path / "sweep" / str(i) / "metrics.json").exists() for i in range(6))
    chosen = {(config.model._target_.rpartition(".")[2], config.data.variation) for config in configs}
    assert chosen == {(model, variation) for model in ("MLP", "CNN") for variation in ("basic", "rot", "back-rand")}
    # The last one ends as it would have alone, whatever ran in this process before.
    train("data=noisy_digits", "model=cnn", "data.variation=back-rand", "hydra.run.dir=alone").ok()
    assert metrics(tmp_path / "alone") == metrics(tmp_path / "sweep" / "5")
    first, second = (weights(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("alone", "sweep/5"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_runs_started_in_the_same_second_get_folders_of_their_own(tiny_data, tmp_path):
    options = [*SMALL, "trainer.accelerator=cpu", "trainer.max_epochs=1", f"data_dir={tiny_data}", "evaluate_on=[val]"]
    command = [sys.executable, str(PROJECT / "train.py"), *options]
    started = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in started] == [0, 0]
    folders = list((tmp_path / "outputs" / "mnist-mlp").iterdir())
    assert len(folders) == 2
    assert all((folder / "metrics.json").exists() for folder in folders)


@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_clipping_and_accumulation_under_mixed_precision(optimizer, train, tmp_path):
    train(
        *(*SMALL, f"optimizer={optimizer}", "trainer.precision=bf16-mixed"),
        *("trainer.gradient_clip_val=1", "trainer.accumulate_grad_batches=2", "hydra.run.dir=run"),
    ).ok()


def test_workers_and_the_progress_bar_change_no_number(train, tmp_path):
    train(*SMALL, "trainer.max_epochs=2", "hydra.run.dir=plain").ok()
    workers = ("data.num_workers=2", "trainer.enable_progress_bar=true", "hydra.run.dir=workers")
    result = train(*SMALL, "trainer.max_epochs=2", *workers).ok()
    assert "Epoch 2/2" not in result.out  # the bar is for terminals
    assert metrics(tmp_path / "plain") == metrics(tmp_path / "workers")


def test_fewer_splits_and_another_objective(train, tmp_path):
    train(*SMALL, "evaluate_on=[test]", "objective=val/loss", "trainer.max_epochs=2", "hydra.run.dir=run").ok()
    assert {name.split("/")[0] for name in metrics(tmp_path / "run")} == {"val", "test", "best_epoch", "epochs"}


def test_fit_never_touches_the_test_part(train, monkeypatch):
    from imgclf.data.torchvision_data import TorchvisionImages

    load = TorchvisionImages.load

    def guarded(self, split):
        assert split == "train"
        return load(self, split)

    monkeypatch.setattr(TorchvisionImages, "load", guarded)
    train(*SMALL, "evaluate_on=[train,val]", "hydra.run.dir=run").ok()


@needs_real_data
def test_the_real_mnist_in_one_epoch(script, tmp_path):
    script(
        *("train.py", f"data_dir={REAL_DATA}", "data=mnist", "model=mlp", "trainer.max_epochs=1", "hydra.run.dir=run"),
        *("trainer.accelerator=cpu", "evaluate_on=[val,test]"),
    ).ok()
    assert metrics(tmp_path / "run")["test/accuracy"] > 0.93

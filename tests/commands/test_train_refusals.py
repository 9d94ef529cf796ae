"""What train.py refuses: one clear line, exit code 1, nothing written over."""

import os
import runpy
import subprocess
import sys

import pytest
import torch

from tests.conftest import PROJECT, SMALL


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trainer.accelerator=gpu"], ["no such GPU", "use trainer.accelerator=cpu"]),
        (["trainer.accelerator=tpu"], ["accelerator=tpu", "auto, cpu or gpu"]),
        (["data.variation=back-imag"], ["data.variation=back-imag", "back-image", "rot-back-squared"]),
        (["data=cifar"], ["data=cifar", "noisy_mnist", "fashion_mnist"]),
        (["model=vgg"], ["model=vgg", "cnn", "mlp", "resnet"]),
        (["model=torchvision", "model.name=resnet19"], ["model.name=resnet19", "resnet18"]),
        (["model=torchvision", "model.name=vgg11"], ["model.name=vgg11", "(1, 28, 28)"]),
        (["objective=val/acuracy"], ["objective=val/acuracy", "val/accuracy", "val/kappa"]),
        (["objective=test/accuracy"], ["objective=test/accuracy", "val/accuracy"]),
        (["-m", "seed=1,2", "objective=test/accuracy"], ["objective=test/accuracy", "val/accuracy"]),
        (["callbacks.best_checkpoint.monitor=test/loss"], ["best_checkpoint.monitor=test/loss: test metrics choose"]),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.monitor=test/loss"],
            ["callbacks.early_stopping.monitor=test/loss: test metrics choose nothing"],
        ),
        (["objective=val/auroc"], ["objective=val/auroc needs data of two classes, not 10"]),
        (["classifier.threshold=2"], ["classifier.threshold=2", "between 0 and 1"]),
        (["classifier.normalize=batch"], ["classifier.normalize=batch", "dataset, image"]),
        (["data.balance=both"], ["data.balance=both", "weighted_loss"]),
        (["augmentation.crop.min_area=2"], ["min_area=2", "from 0 to 1"]),
        (["data=image_folder"], ["data.root", "data.root=DIR"]),
        (["data=image_folder", "data.root=nowhere"], ["data.root=nowhere: no such folder"]),
        (["data=chest_xray", "data.group_pattern=nobody"], ["data.group_pattern=nobody", "no file, such as IM-0"]),
        (["data=chest_xray", "data.positive=FLU"], ["data.positive=FLU", "NORMAL, PNEUMONIA"]),
        (["data.batchsize=4"], ["data.batchsize", "did you mean data.batch_size", "val_fraction"]),
        (["optimiser=sgd"], ["optimiser", "did you mean optimizer"]),
        (["data.batch_size=0"], ["data.batch_size=0", "from 1 up"]),
        (["data.batch_size=many"], ["data.batch_size=many", "whole number"]),
        (["data.val_fraction=0"], ["data.val_fraction=0", "between 0 and 1"]),
        (["data.val_fraction=1.5"], ["data.val_fraction=1.5", "between 0 and 1"]),
        (["optimizer.lr=-1"], ["optimizer.lr=-1", "from 0 up"]),
        (["optimizer.lr=nan"], ["optimizer.lr=nan", "from 0 up"]),
        (["model.dropout=1"], ["model.dropout=1"]),
        (["resume=no"], ["resume=no", "true or false"]),
        (["data.fresh=off"], ["data.fresh=off", "true or false"]),
        (["data.variation=null"], ["data.variation=None", "back-image"]),
        (["model=resnet", "model.widths=[]"], ["model.widths=[]", "[32,64]"]),
        (["trainer.max_epochs=0"], ["trainer.max_epochs=0", "from 1 up"]),
        (["evaluate_on=[tset]"], ["evaluate_on=", "tset", "train, val, test"]),
        (["evaluate_on=test"], ["evaluate_on=test", "a list", "train, val, test"]),
        (["optimizer.lr=1e30", "optimizer=sgd"], ["became", "step", "optimizer.lr"]),
        (["model.channels=[8,8,8,8,8]"], ["model.channels", "too many blocks"]),
        (["model.channels=[0]"], ["model.channels=[0]", "from 1 up"]),
        (["model=mlp", "model.hidden=abc"], ["model.hidden=abc", "a list", "whole number"]),
        (["trainer.gradient_clip_val=-1"], ["trainer.gradient_clip_val=-1", "above 0"]),
        (["seed=null"], ["seed=None", "from 0 to"]),
        (["experiment=none_such"], ["experiment=none_such", "mnist_cnn"]),
        (["model._target_=os.system"], ["os.system", "whitelist"]),
        (["trainer.devices=0"], ["trainer.devices=0", "from 1 up"]),
        (["trainer=ddp", "data.batch_size=33"], ["data.batch_size=33", "multiple of 2"]),
        (["trainer.num_nodes=2"], ["trainer.num_nodes=2", "torchrun --nnodes=2 --nproc-per-node=1", "srun"]),
        (["trainer.devices=2", "trainer.strategy=fsdp"], ["trainer.strategy=fsdp", "ddp"]),
        (["trainer.max_epochs=3", "trainer.precision=17"], ["17", "16-mixed"]),
        (["data.variation=[rot"], ["[rot"]),
        (["data.num_workers=100000"], ["data.num_workers=100000", "from 0 to 512"]),
        (["data.split_seed=-1"], ["data.split_seed=-1", "from 0"]),
        (["scheduler=cosine", "scheduler.factory.T_max=0"], ["scheduler.factory.T_max=0", "from 1 up"]),
        (["scheduler=onecycle", "scheduler.factory.total_steps=5"], ["factory.total_steps=5", "leave it out"]),
        (["seed=4294967296"], ["seed=4294967296", "from 0 to 4294967295"]),
        (["model=resnet", "model.depth=1000000000"], ["model.depth=1000000000", "from 1 to 1000"]),
        (["model=resnet", "model.widths=3"], ["model.widths=3", "a list", "whole number"]),
        (["callbacks.best_checkpoint.monitor=val/f2"], ["callbacks.best_checkpoint.monitor=val/f2", "val/f1"]),
        (["~callbacks.last_checkpoint"], ["callbacks.last_checkpoint=None", "leave it in"]),
        (["+trainer.max_steps=5"], ["trainer.max_steps=5", "whole epochs"]),
        (["model=mlp", "model.hidden=[1000000000000]"], ["not enough memory", "data.batch_size"]),
        (["trainer.log_every_n_steps=a"], ["trainer.log_every_n_steps=a", "whole number"]),
        (["--epochs", "3"], ["--epochs", "name=value"]),
        (["experiment", "mnist_cnn"], ["cannot read experiment", "name=value"]),
        (["model.name=resnet18"], ["unknown option model.name", "it comes with model=timm or torchvision"]),
        (["callbacks.ema.decay=0.9"], ["unknown option callbacks.ema", "it comes with callbacks=ema"]),
        (["n_trials=3"], ["unknown option n_trials", "it comes with sweep=bayesian or random"]),
        (["callbacks=ema", "callbacks.ema.decay=1"], ["callbacks.ema.decay=1", "not including, 1"]),
        (["callbacks=ema", "callbacks.ema.decay=abc"], ["callbacks.ema.decay=abc"]),
        (["callbacks=ema", "+callbacks.ema.update_every_n_steps=0"], ["update_every_n_steps=0", "from 1 up"]),
        (["classifier.threshold=validation"], ["classifier.threshold=validation is for two classes, not 10"]),
        (["model.kernel_size=2.5"], ["model.kernel_size=2.5", "from 1 to 1000"]),
        (["model.padding=-1"], ["model.padding=-1", "from 0 to 1000"]),
        (["model=resnet", "model.stem_stride=0"], ["model.stem_stride=0", "from 1 to 1000"]),
        (["optimizer.betas=[a,b]"], ["TypeError", "given ", "optimizer.betas=[a,b]"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and "=" in value[0] else "",
)
def test_bad_input(arguments, parts, train, tmp_path):
    line = train(*arguments, "hydra.run.dir=run").error
    for part in parts:
        assert part in line
    assert not list((tmp_path / "run").rglob("*.ckpt"))


@pytest.mark.parametrize(
    "option", ["objective=no", "data.batch_size=0", "model.dropout=2", "trainer.num_nodes=2", "optimizer.betas=[a,b]"]
)
def test_an_option_refused_at_once_leaves_no_folder(option, train, tmp_path):
    assert option.partition("=")[0] in train(option, "hydra.run.dir=run").error
    assert not (tmp_path / "run").exists()


def test_resume_names_the_run(train, tmp_path):
    assert "hydra.run.dir=DIR" in train(*SMALL, "resume=true").error
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_data_that_is_missing_and_cannot_be_downloaded(script, tmp_path, monkeypatch):
    import torchvision.datasets

    def offline(self):
        raise RuntimeError("Error downloading\nTried x, got:\n<urlopen error [Errno -2] Name or service not known>")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", offline)
    line = script("train.py", "data=mnist", "data_dir=nowhere", "trainer.accelerator=cpu").error
    for part in ("Name or service not known", "train-images-idx3-ubyte", "nowhere/MNIST/raw", "data=noisy_digits"):
        assert part in line


def test_a_damaged_file_is_named(train, tiny_data, tmp_path):
    import shutil

    shutil.copytree(tiny_data / "MNIST", tmp_path / "copy" / "MNIST")
    file = tmp_path / "copy" / "MNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{file}: damaged" in train("data=mnist", "data.batch_size=50", f"data_dir={tmp_path / 'copy'}").error


def test_a_loss_that_becomes_nan_keeps_the_last_good_checkpoint(train, tmp_path, monkeypatch):
    from imgclf.models.classifier import Classifier

    forward = Classifier.forward

    def poisoned(self, images):
        bad = self.training and self.trainer.global_step == 6  # four steps an epoch
        return forward(self, images) * (float("nan") if bad else 1)

    monkeypatch.setattr(Classifier, "forward", poisoned)
    line = train(*SMALL, "trainer.max_epochs=4", "hydra.run.dir=run").error
    assert "loss became nan at step 7 (epoch 2)" in line
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["epoch"] == 0
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())


def test_two_runs_cannot_share_a_folder(train, tmp_path):
    from imgclf.runs.run_dir import RunDir

    with RunDir(tmp_path / "run"):
        assert "in use by another run" in train(*SMALL, "hydra.run.dir=run", "resume=true").error


def test_as_a_process_a_bad_input_gets_one_line(tmp_path):
    command = [sys.executable, str(PROJECT / "train.py"), "data.variation=no", "trainer.accelerator=cpu"]
    environment = {name: value for name, value in os.environ.items() if name != "HYDRA_FULL_ERROR"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: data.variation=no: choose one of basic")


def test_hydra_full_error_hands_on_the_exception(script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["train.py", "objective=no"])
    with pytest.raises(ValueError, match="objective=no"):
        runpy.run_path(str(PROJECT / "train.py"), run_name="__main__")

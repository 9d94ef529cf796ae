"""What people type by mistake gets the line that they should have typed."""

import sys

import pytest

from tests.conftest import SMALL


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data=/my/folder", "data=image_folder data.root=/my/folder"),
        ("data=../pictures", "data=image_folder data.root=../pictures"),
        ("data=mnits", "did you mean data=mnist?"),
        ("model=resnet18", "model=torchvision model.name=resnet18"),
        ("model=vgg", "choose one of cnn, mlp"),
        ("epochs=5", "did you mean trainer.max_epochs?"),
        ("lr=0.1", "did you mean optimizer.lr?"),
        ("batch_size=16", "did you mean data.batch_size?"),
        ("workers=2", "did you mean data.num_workers?"),
        ("image_size=64", "data.image_size comes with data="),
        ("patience=3", "callbacks.early_stopping.patience comes with callbacks=early_stopping"),
        ("colour=red", "the configuration has"),
    ],
)
def test_a_guessed_name(typed, meant, train):
    result = train(typed)
    assert result.code == 1
    assert meant in result.error


def test_a_folder_of_any_name_is_trained_on_resumed_and_predicted(train, script, tmp_path):
    from tests.data.test_image_folder import write

    write(tmp_path / "数据 (2), #1", ("0", "1"), 10)
    options = (
        "data=image_folder",
        "data.root=数据 (2), #1",
        "data.positive=0",
        "data.image_size=8",
        "data.batch_size=4",
    )
    train(*SMALL, *options, "model=mlp", "hydra.run.dir=a run, (1)", "callbacks=null", "logger=null").ok()
    assert not (tmp_path / "a run, (1)" / "tensorboard").exists()
    train("hydra.run.dir=a run, (1)", "resume=true", "trainer.max_epochs=2").ok()
    refused = train("hydra.run.dir=a run, (1)", "resume=true", "optimizer.lr=0.5")
    assert "optimizer.lr was 0.001, is 0.5" in refused.error
    ckpt = "ckpt=a run, (1)/checkpoints/best.ckpt"
    predicted = script("evaluate.py", ckpt, "images=[数据 (2)/0/00.png]", "hydra.run.dir=p")
    assert predicted.code == 1
    assert "no image" in predicted.error
    predicted = script("evaluate.py", ckpt, "images=数据 (2), #1", "hydra.run.dir=p").ok()
    assert "images with a known label: 20" in predicted.out


def test_another_folder_is_read_as_the_checkpoint_s_and_evaluated_as_a_whole(train, script, tmp_path):
    from tests.data.test_image_folder import write

    write(tmp_path / "home", ("cat", "dog"), 20)
    write(tmp_path / "away", ("Cat", "DOG"), 7, first=50)
    options = ("data=image_folder", "data.root=home", "data.image_size=[8,12]", "data.channels=1", "data.fit=pad")
    train(*SMALL, *options, "data.batch_size=8", "model=mlp", "hydra.run.dir=run").ok()
    ckpt = "ckpt=run/checkpoints/best.ckpt"
    result = script("evaluate.py", ckpt, "data=image_folder", "data.root=away", "hydra.run.dir=there").ok()
    assert "test (14 images)" in result.out
    own = script("evaluate.py", ckpt, "hydra.run.dir=here")
    assert "test (8 images)" in own.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train.py data=image_folder data.root=a\u00e9(1)", "data.root=a\u00e9(1): no such folder"),
        ("train.py data=image_folder data.labels=none.csv", "data.labels=none.csv: no such file"),
        ("train.py data=amat data.train=none.amat", "data.train=none.amat: no such file"),
        ("train.py data=noisy_digits data.backgrounds=none", "data.backgrounds=none: no such folder"),
        ("evaluate.py ckpt=none.ckpt", "none.ckpt: no such file"),
        ("evaluate.py", "ckpt=PATH is missing"),
        ("evaluate.py checkpoint=best.ckpt", "unknown option checkpoint: did you mean ckpt?"),
        ("evaluate.py ckpt=none.ckpt data=digits", "none.ckpt: no such file"),
        ("train.py data=image_folder data.columns={file", "data.columns={file: write a dictionary of names"),
    ],
)
def test_a_place_that_does_not_exist_is_noticed_before_the_imports(words, message, script, monkeypatch):
    for package in ("lightning.pytorch", "imgclf.checkpoints.metadata"):
        monkeypatch.setitem(sys.modules, package, None)  # so that importing it fails
    assert message in script(*words.split()).error

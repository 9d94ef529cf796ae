"""train.py refuses what cannot be a start in one clear line, and executes nothing that a file holds."""

import urllib.error
import urllib.request

import pytest
import torch

from imgclf.models.cnn import CNN
from tests.checkpoints.test_weights import bad_files

DATA = ("data=mnist", "data.batch_size=50")  # tiny, of 28x28 pixels
ISSUES = {
    "calls.pt": "it calls posix.mkdir",  # a pickle with code
    "zip_bomb.pt": "it is compressed",
    "half.pt": "damaged",
    "mlp.pt": "nothing fits, it is of another network",
    "own_head.pt": "only the head fits, it is of another network",
    "cut.safetensors": "damaged, or no file of safetensors",
    "nowhere.pt": "no such file",
    "DEFAULT": "no such file",  # published weights, of a network that has none
}


@pytest.fixture
def offline(monkeypatch):
    def refuse(*arguments, **options):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("torch.hub.urlopen", refuse)


def test_bad_files_are_refused(train, tmp_path):
    bad_files(tmp_path)
    state = CNN((1, 28, 28), 10, channels=[4, 6]).state_dict()
    torch.save({name: value for name, value in state.items() if value.shape[0] == 10}, tmp_path / "own_head.pt")
    save = pytest.importorskip("safetensors.torch").save
    (tmp_path / "cut.safetensors").write_bytes(save(state)[:-100])
    for name, words in ISSUES.items():
        line = train(*DATA, "model=cnn", "model.channels=[4,6]", f"model.weights={name}", "hydra.run.dir=run").error
        assert f"model.weights={name}: " in line
        assert words in line
    assert not (tmp_path / "was_executed").exists()


def test_published_weights_that_are_not_on_disk(train, offline, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    line = train(*DATA, "model=torchvision", "model.weights=DEFAULT").error
    assert "model.weights=DEFAULT: resnet18-f37072fd.pth is not in" in line


def test_names_of_timm(train, offline, monkeypatch):
    pytest.importorskip("timm", reason="needs timm: pip install -e '.[timm]'")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *arguments: None)
    line = train(*DATA, "model=timm", "model.name=tf_eficientnet_lite0").error
    assert "model.name=tf_eficientnet_lite0: timm has no such network; the nearest are tf_efficientnet_lite0" in line
    line = train(*DATA, "model=timm", "model.name=resnet18", "model.weights=DEFAULT").error
    assert "model.weights=DEFAULT: https://huggingface.co/" in line
    assert "is not on disk and cannot be fetched" in line
    line = train("data=chest_xray", "model=timm", "model.name=tf_eficientnet_lite0", "model.weights=DEFAULT").error
    assert "the nearest are tf_efficientnet_lite0" in line  # the size of images is asked for first


def test_a_network_that_is_all_head_has_nothing_to_freeze(train):
    line = train(*DATA, "model=mlp", "model.hidden=[]", "model.freeze_epochs=2").error
    assert "model.freeze_epochs=2: this network has no layer beside its head: give 0" in line

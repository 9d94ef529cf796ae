import urllib.error
import urllib.request

import pytest
import torch
from torchvision import models

from imgclf.models.torchvision_models import TorchvisionNetwork


@pytest.mark.parametrize(
    ("name", "side"),
    [
        *(("resnet18", 32), ("mobilenet_v3_small", 32), ("inception_v3", 80), ("googlenet", 40), ("squeezenet1_1", 32)),
        *(("regnet_x_400mf", 32), ("swin_t", 32), ("vit_b_32", 64), ("efficientnet_b0", 32), ("densenet121", 32)),
    ],
)
def test_families_of_the_zoo_take_grey_images_and_give_logits(name, side):
    network = TorchvisionNetwork((1, side, side), 5, name)
    assert network(torch.rand(2, 1, side, side)).shape == (2, 5)


@pytest.fixture
def pretrained(monkeypatch):
    """Stands in for torchvision's download: any pretrained network is the one made here, with its 1,000 classes."""
    made, get_model = {}, models.get_model

    def fake(name, weights=None, progress=True, **options):
        if weights is None:
            return get_model(name, **options)
        return made.setdefault(name, get_model(name))

    monkeypatch.setattr(models, "get_model", fake)
    return made


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16"])
def test_pretrained_weights_are_taken_but_for_the_head(name, pretrained):
    expected = models.get_model_weights(name)["DEFAULT"].transforms()
    grey, colour = (TorchvisionNetwork((channels, 224, 224), 1, name, "DEFAULT") for channels in (1, 3))
    source = pretrained[name].state_dict()
    head = list(pretrained[name].named_children())[-1][0]
    for key, value in colour.network.state_dict().items():
        assert key.startswith(f"{head}.") or torch.equal(value, source[key])
    assert colour.statistics == (expected.mean, expected.std)
    assert grey.statistics[0] == pytest.approx([sum(expected.mean) / 3])
    first = next(key for key, value in source.items() if value.ndim == 4)
    assert torch.equal(grey.network.state_dict()[first], source[first].sum(1, keepdim=True))
    assert grey.init_args["weights"] is None  # rebuilt from a checkpoint, it needs none
    if name == "vit_b_16":
        with pytest.raises(ValueError, match=r"^weights=DEFAULT: .*image_size=224"):
            TorchvisionNetwork((3, 64, 64), 1, name, "DEFAULT")


def test_published_weights_say_the_size_of_images():
    assert TorchvisionNetwork.published_size("inception_v3", "DEFAULT") == [299, 299]
    assert TorchvisionNetwork.published_size("vit_b_16", "IMAGENET1K_SWAG_E2E_V1") == [384, 384]
    assert TorchvisionNetwork.published_size("resnet18", "mine.pth") == [224, 224]  # counts as the default weights


def test_only_the_head_learns_while_the_rest_is_frozen():
    network = TorchvisionNetwork((1, 32, 32), 1, freeze_epochs=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)

    def step(epoch: int) -> set[str]:
        """The tensors that an epoch of training changes."""
        before = {name: value.clone() for name, value in network.state_dict().items()}
        network.train().begin_epoch(epoch)
        optimizer.zero_grad()
        network(torch.rand(4, 1, 32, 32)).sum().backward()
        optimizer.step()
        return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}

    for epoch in (0, 1):
        assert step(epoch) == {"network.fc.weight", "network.fc.bias"}
    assert step(2) == set(network.state_dict())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet19"}, r"^name=resnet19: choose one of .*resnet18"),
        ({"name": "inception_v3"}, r"^name=inception_v3: .*\(1, 32, 32\)"),
        ({"name": "vit_b_16", "image_shape": (1, 30, 30)}, r"^name=vit_b_16: .*\(1, 30, 30\)"),
        ({"weights": "BEST"}, r"^weights=BEST: resnet18 has IMAGENET1K_V1, DEFAULT"),
        ({"freeze_epochs": -1}, r"^freeze_epochs=-1: .*from 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TorchvisionNetwork(**{"image_shape": (1, 32, 32), **options})


def test_weights_that_are_nowhere_are_named(monkeypatch, tmp_path):
    def offline(*arguments, **options):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr("torch.hub.urlopen", offline)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        TorchvisionNetwork((3, 32, 32), 2, "resnet18", "DEFAULT")
    for part in ("resnet18-f37072fd.pth", f"{tmp_path}/hub/checkpoints", "Name or service not known", "weights=null"):
        assert part in str(error.value)

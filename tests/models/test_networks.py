import inspect
import re
from importlib.util import find_spec

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from imgclf.checkpoints.metadata import network_classes, rebuild_config
from imgclf.core.device import choose_precision
from imgclf.models.cnn import CNN
from imgclf.models.mlp import MLP
from imgclf.models.network import Dropout
from imgclf.models.p4cnn import P4CNN
from imgclf.models.resnet import ResidualBlock, ResNet
from imgclf.models.torchvision_models import TorchvisionNetwork
from tests.conftest import PROJECT, options

HAS_TIMM = find_spec("timm") is not None
NETWORKS = [name for name in options("model") if name != "timm" or HAS_TIMM]


def build(name: str, **arguments):
    config = OmegaConf.load(PROJECT / "conf" / "model" / f"{name}.yaml")
    return instantiate(config, _convert_="all", _execution_whitelist_=network_classes(), **arguments)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 40, 33)])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_model_config(name, shape):
    network = build(name, image_shape=list(shape), num_classes=7)
    logits = network(torch.rand(4, *shape))
    assert logits.shape == (4, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    rebuilt = instantiate(rebuild_config(network), _convert_="all", _execution_whitelist_=network_classes())
    rebuilt.load_state_dict(network.state_dict())
    images = torch.rand(2, *shape)
    assert torch.equal(network.eval()(images), rebuilt.eval()(images))


@pytest.mark.parametrize("name", NETWORKS)
def test_configs_state_the_defaults_of_their_class(name):
    config = OmegaConf.to_container(OmegaConf.load(PROJECT / "conf" / "model" / f"{name}.yaml"))
    network = build(name, image_shape=[1, 28, 28], num_classes=10)
    for argument, default in inspect.signature(type(network).__init__).parameters.items():
        if argument not in ("self", "image_shape", "num_classes", "weights", "freeze_epochs"):  # train.yaml has these
            expected = list(default.default) if isinstance(default.default, tuple) else default.default
            assert config[argument] == expected


def test_defaults_are_the_small_projects_networks():
    def layers(network, kind):
        return [layer for layer in network.modules() if isinstance(layer, kind)]

    assert [(layer.in_features, layer.out_features) for layer in layers(MLP(), torch.nn.Linear)] == [
        (784, 128),
        (128, 64),
        (64, 10),
    ]
    assert [(layer.out_channels, layer.kernel_size) for layer in layers(CNN(), torch.nn.Conv2d)] == [
        (32, (3, 3)),
        (64, (3, 3)),
    ]
    assert sum(p.numel() for p in CNN().parameters()) == 34_826
    assert layers(CNN(), Dropout)[0].p == 0.5
    assert 50_000 < sum(p.numel() for p in ResNet().parameters()) < 200_000


def test_too_many_blocks_for_the_image():
    with pytest.raises(ValueError, match=r"^channels=\[8, 8, 8, 8\]: too many blocks"):
        CNN(channels=[8, 8, 8, 8])


def test_dropout_keeps_its_share_and_the_mean():
    x = torch.ones(300, 1001)
    layer = Dropout(0.3)
    y = layer(x)
    kept = 1 - layer.p
    assert layer.p == round(0.3 * 256) / 256
    assert float((y != 0).double().mean()) == pytest.approx(kept, abs=0.005)
    assert y.unique().tolist() == [0, pytest.approx(1 / kept)]
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert Dropout(0.999)(x).isfinite().all()
    for p in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=rf"^p={p}: .*from 0"):
            Dropout(p)


def test_steps_in_bfloat16_leave_out_convolutions_that_stride_past_their_input(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    cpu = torch.device("cpu")
    for network, precision in (
        (CNN(), "bf16-mixed"),
        (ResNet(), "bf16-mixed"),
        (ResNet(stem_stride=14), "32-true"),  # leaves two pixels, the second stage one, which the third strides past
        (TorchvisionNetwork((3, 32, 32), 10, name="resnet18"), "bf16-mixed"),
        (TorchvisionNetwork((3, 16, 16), 10, name="resnet18"), "32-true"),
    ):
        assert choose_precision("auto", cpu, network) == precision
        assert network.training
        assert choose_precision("bf16-mixed", cpu, network) == "bf16-mixed"


def test_dropout_passes_the_gradient_of_what_it_kept():
    x = torch.ones(10, 100, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_a_deeper_cnn_has_more_convolutions_a_block_at_the_same_sizes():
    network = CNN(channels=[4, 6], depth=3, padding=1, batch_norm=True)
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in convolutions] == [
        *((1, 4), (4, 4), (4, 4)),
        *((4, 6), (6, 6), (6, 6)),
    ]
    assert network.layers[-1].in_features == 6 * 7 * 7
    with pytest.raises(ValueError, match=r"^channels=.*too many blocks"):
        CNN(channels=[4, 4, 4], depth=2)


def test_global_pool_averages_over_the_image():
    network = CNN((1, 28, 24), channels=[6, 7], depth=2, dropout=0.0, global_pool=True).eval()
    maps = network.layers[:-4](torch.rand(3, 1, 28, 24))  # without average, flattening, dropout and linear layer
    assert maps.shape == (3, 7, 2, 1)
    pooled = network.layers[-4:](maps)
    torch.testing.assert_close(pooled, network.layers[-1](maps.mean((2, 3))))
    assert CNN(channels=[6, 7], global_pool=True, hidden=[5]).layers[-3].in_features == 7


def test_stochastic_depth_leaves_blocks_out_per_image_in_training_only():
    network = ResNet(widths=[4, 4], depth=2, stochastic_depth=0.5)
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    assert [block.drop.p for block in blocks] == [0.125, 0.25, 0.375, 0.5]
    last = blocks[-1].train()
    torch.nn.init.ones_(last.norm2.bias)  # so that the branch is never 0
    images = torch.rand(200, 4, 6, 6)
    left_out = (last(images) == images).flatten(1).all(1)
    assert 60 < int(left_out.sum()) < 140
    assert not (last.eval()(images) == images).flatten(1).all(1).any()


@pytest.mark.parametrize("depth", [1, 2])
def test_maps_of_a_turned_image_are_turned_and_move_on_by_one_orientation(depth):
    network = P4CNN((2, 16, 16), 5, channels=[3, 4], depth=depth).eval()
    images = torch.rand(6, 2, 16, 16)
    maps, of_turned = (network.layers(x).unflatten(1, (4, 4)) for x in (images, images.rot90(1, (2, 3))))
    torch.testing.assert_close(of_turned, maps.rot90(1, (3, 4)).roll(1, 1))
    assert maps.std(1).mean() > 0.01  # the orientations differ


def test_invariant_logits_are_those_of_every_quarter_turn():
    images = torch.rand(6, 1, 28, 28)
    turned = [images.rot90(turn, (2, 3)) for turn in range(4)]
    invariant, upright = (P4CNN(channels=[3, 4], invariant=choice).eval() for choice in (True, False))
    for x in turned:
        torch.testing.assert_close(invariant(x), invariant(images))
    assert all(not torch.allclose(upright(x), upright(images), atol=1e-3) for x in turned[1:])
    with pytest.raises(ValueError, match=r"^channels=\[1, 1, 1, 1\]"):
        P4CNN((1, 4, 4), channels=[1, 1, 1, 1])


@pytest.mark.parametrize(
    ("network", "options"),
    [
        *((CNN, {name: value}) for name, value in (("channels", [8, 0]), ("hidden", 128), ("dropout", 1.0))),
        *((CNN, {name: value}) for name, value in (("depth", 0), ("kernel_size", 2.0), ("padding", -1))),
        *((CNN, {name: value}) for name, value in (("batch_norm", "no"), ("global_pool", 2), ("depth", 10_000))),
        *((MLP, {"hidden": value}) for value in ("128", [128.0], [-1])),
        *((ResNet, {name: value}) for name, value in (("widths", []), ("stem_stride", 0), ("stochastic_depth", 1.0))),
        *((P4CNN, {name: value}) for name, value in (("channels", []), ("invariant", 2), ("dropout", float("nan")))),
    ],
)
def test_an_argument_out_of_range_is_named_with_its_value(network, options):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"^{name}={re.escape(str(value))}: "):
        network(**options)

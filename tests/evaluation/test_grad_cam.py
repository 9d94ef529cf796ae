import pytest
import torch
from torch import nn

from imgclf.data.datasets import ImageDataset
from imgclf.evaluation.evaluate import Evaluation
from imgclf.evaluation.grad_cam import grad_cam, plot_explanations
from imgclf.inference.predictor import Predictor
from imgclf.models.classifier import Classifier
from imgclf.models.cnn import CNN
from imgclf.models.mlp import MLP
from imgclf.models.network import Network
from imgclf.models.resnet import ResNet

pytestmark = pytest.mark.draws


class Bright(Network):
    """The second class's evidence is light, wherever it is."""

    def __init__(self, image_shape=(1, 16, 16), num_classes=1):
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1, bias=False)
        self.layer.weight.data.fill_(1.0)

    def forward(self, images):
        return self.layer(images).mean((2, 3))


def predictor(network, names=("dark", "light")) -> Predictor:
    return Predictor(Classifier(network, list(names)), tuple(network.init_args["image_shape"]), batch_size=3)


def test_grad_cam_finds_the_evidence():
    images = torch.zeros(5, 1, 16, 16, dtype=torch.uint8)
    for i in range(4):
        images[i, 0, 3 * i : 3 * i + 2, 5:8] = 200
    heat = grad_cam(predictor(Bright()), images, torch.ones(5, dtype=torch.long))
    assert heat.shape == (5, 16, 16)
    for i in range(4):
        assert torch.equal(heat[i] > 0.5, images[i, 0] > 100)
    assert not heat[4].any()  # nothing there


def test_what_all_logits_have_in_common_is_no_evidence():
    """A softmax does not see it: neither here, where it would hide all evidence of the class."""
    network = CNN((1, 16, 16), 5, channels=[4])
    images, classes = torch.randint(0, 256, (6, 1, 16, 16), dtype=torch.uint8), torch.tensor([0, 1, 2, 3, 4, 0])
    before = grad_cam(predictor(network, "abcde"), images, classes)
    network.layers[-1].weight.data -= 1
    assert before.amax((1, 2)).max() == 1
    torch.testing.assert_close(grad_cam(predictor(network, "abcde"), images, classes), before, rtol=0, atol=1e-4)


@pytest.mark.parametrize("network", [CNN, ResNet])
def test_any_network_with_a_spatial_layer(network):
    images = torch.randint(0, 256, (4, 3, 40, 33), dtype=torch.uint8)
    heat = grad_cam(predictor(network((3, 40, 33), 5), "abcde"), images, torch.tensor([0, 1, 2, 4]))
    assert heat.shape == (4, 40, 33)
    assert float(heat.max()) == pytest.approx(1)
    assert float(heat.min()) >= 0


def evaluation(classes: int, count: int = 30) -> Evaluation:
    images = ImageDataset(torch.randint(0, 256, (count, 1, 16, 16), dtype=torch.uint8), torch.arange(count) % classes)
    probabilities = torch.rand(count, classes).softmax(1)
    return Evaluation("test", images, images.targets, torch.rand(count), probabilities, 0.5, [""] * count)


def test_the_figure_has_a_row_for_each_outcome():
    torch.manual_seed(1)
    e = evaluation(2)
    figure = plot_explanations(e, predictor(Bright()))
    assert [ax.get_title(loc="left") for ax in figure.axes] == [
        "light found",
        "light missed",
        "dark taken for light",
        "dark recognised",
    ]
    captions = [text.get_text() for text in figure.axes[1].texts]
    missed = ((e.labels == 1) & (e.predicted == 0)).nonzero().flatten().tolist()
    allowed = {f"light {100 * float(e.probabilities[i, 1]):.0f}%" for i in missed}
    assert captions
    assert set(captions) <= allowed
    figure = plot_explanations(evaluation(5), predictor(CNN((1, 16, 16), 5, channels=[4]), "abcde"))
    assert {ax.get_title(loc="left") for ax in figure.axes} == {"right", "wrong"}


def test_a_network_without_a_spatial_layer_gets_no_figure():
    assert plot_explanations(evaluation(2), predictor(MLP((1, 16, 16), 1))) is None

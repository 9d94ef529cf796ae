"""Transforms one after the other: what is fused, what is left out, and how a user adds one."""

import pytest
import torch
from hydra import compose as compose_config
from hydra import initialize_config_dir
from hydra.utils import instantiate

from imgclf.core import rng
from imgclf.transforms import spatial
from imgclf.transforms.compose import Compose, compose
from imgclf.transforms.intensity import GaussianBlur
from imgclf.transforms.mixing import MixUp
from imgclf.transforms.spatial import ElasticDeformation, RandomAffine, RandomFlip, RandomResizedCrop, RandomShift
from tests.conftest import PROJECT

ORDER = ["flag_and_foot", "affine", "crop", "flip", "elastic", "shift"]
ORDER += ["stroke_width", "blur", "color", "erasing", "mixup", "cutmix"]


class Invert:
    """A user's own transform: it needs no base class and no more than this."""

    def __call__(self, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return 1 - images


class Always(RandomAffine):
    """A shift of every image by whole pixels, so that a warp after another is exact."""

    def __init__(self, x: float, y: float) -> None:
        super().__init__(translate=1.0)
        self.offset = torch.tensor([x, y])

    def draw(self, images, generator):
        matrices = torch.eye(3).repeat(len(images), 1, 1)
        matrices[:, :2, 2] = self.offset
        return matrices, None


class Bend(ElasticDeformation):
    """A shift by one pixel of the lower half, as a displacement."""

    def draw(self, images, generator):
        matrices, displacement = super().draw(images, generator)
        displacement = torch.zeros_like(displacement)
        displacement[:, 0, images.shape[2] // 2 :] = 1
        return matrices, displacement


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(6, 2, 12, 17, generator=rng.generator("test", 9))


@pytest.fixture
def warps(monkeypatch) -> list[torch.Tensor]:
    """Grows by one entry whenever images are interpolated."""
    seen, warp = [], spatial.warp

    def counting(images, *arguments, **options):
        seen.append(images)
        return warp(images, *arguments, **options)

    monkeypatch.setattr(spatial, "warp", counting)
    return seen


def augmentation(*overrides: str) -> Compose:
    with initialize_config_dir(str(PROJECT / "conf")):
        config = compose_config("train", list(overrides))
    return instantiate(config.augmentation, _execution_whitelist_=["imgclf.*", f"{__name__}.*"])


def names(composition: Compose) -> list[str]:
    return [type(transform).__name__ for transform in composition.transforms]


def test_nothing_is_the_identity_and_off(images):
    labels = torch.arange(6)
    generator = rng.generator("test", 0)
    for nothing in (Compose(), Compose([RandomFlip(0.0), RandomAffine()]), compose(flip=None)):
        assert not nothing
        assert nothing.transforms == []
        assert nothing(images, generator) is images
        assert nothing.mix(images, labels, 6, generator) == (images, labels)
    assert all(Compose([one]) for one in (RandomResizedCrop(0.9), MixUp(0.1), RandomAffine(degrees=1.0), Invert()))


def test_transforms_are_applied_in_their_order(images):
    def double(images, generator):
        return images * 2

    generator = rng.generator("test", 0)
    assert torch.equal(Compose([Invert(), double])(images, generator), (1 - images) * 2)
    assert torch.equal(Compose([double, Invert()])(images, generator), 1 - images * 2)


@pytest.mark.parametrize(
    "transforms",
    [
        [RandomFlip(0.5), Always(3, -2)],
        [Always(3, -2), RandomFlip(0.5)],
        [Always(1, 1), RandomFlip(0.5), Always(2, 0), Bend(0.1)],
        [RandomFlip(0.5), Bend(0.1)],
        [Bend(0.1), RandomFlip(0.5), Always(-1, 2)],
    ],
    ids=lambda transforms: "-".join(type(one).__name__ for one in transforms),
)
def test_a_fused_warp_equals_the_transforms_one_after_the_other(transforms, images, warps):
    fused = Compose(transforms)(images, rng.generator("test", 0))
    assert len(warps) == (2 if isinstance(transforms[0], Bend) else 1)  # a displacement ends a warp
    expected, generator = images, rng.generator("test", 0)
    for transform in transforms:
        expected = transform(expected, generator)
    inner = (..., slice(4, -4), slice(6, -6))  # away from the border, which each warp repeats
    torch.testing.assert_close(fused[inner], expected[inner], atol=1e-5, rtol=0)


def test_fusing_smooth_images_changes_nothing_but_interpolation(warps):
    y, x = torch.arange(40.0)[:, None], torch.arange(40.0)
    smooth = (0.5 + 0.25 * torch.sin(x / 8) + 0.25 * torch.cos(y / 7)).expand(20, 1, 40, 40)
    transforms = [RandomAffine(10, 0.03, 0.1, 0.1), RandomResizedCrop(0.8), RandomFlip(0.5), ElasticDeformation(0.02)]
    fused = Compose(transforms)(smooth, rng.generator("test", 0))
    assert len(warps) == 1
    expected, generator = smooth, rng.generator("test", 0)
    for transform in transforms:
        expected = transform(expected, generator)
    torch.testing.assert_close(fused[..., 10:-10, 10:-10], expected[..., 10:-10, 10:-10], atol=0.01, rtol=0)


def test_what_is_no_neighbour_is_not_fused(images, warps):
    Compose([RandomAffine(5), GaussianBlur(1.0), RandomAffine(5)])(images, rng.generator("test", 0))
    assert len(warps) == 2
    Compose([RandomFlip(0.5), RandomShift(2)])(images, rng.generator("test", 0))
    assert len(warps) == 2  # both are exact


def test_the_order_of_the_keys_is_the_order_of_application():
    strengths = ("affine.degrees=1", "crop.min_area=0.5", "flip.p=0.5", "elastic.magnitude=0.1", "shift.pixels=1")
    strengths += ("flag_and_foot.p=1",)
    strengths += ("stroke_width.magnitude=1", "blur.sigma=1", "color.gamma=1", "erasing.p=1", "mixup.p=1", "cutmix.p=0")
    for choice in ("none", "affine", "photo"):
        with initialize_config_dir(str(PROJECT / "conf")):
            config = compose_config("train", [f"augmentation={choice}"]).augmentation
        assert [name for name in config if not name.startswith("_")] == ORDER
    given = augmentation(*(f"augmentation.{strength}" for strength in reversed(strengths)))
    assert names(given) == [
        *("FlagAndFoot", "RandomAffine", "RandomResizedCrop", "RandomFlip", "ElasticDeformation", "RandomShift"),
        *("StrokeWidth", "GaussianBlur", "ColorJitter", "RandomErasing", "MixUp"),
    ]


def test_the_choices_and_a_strength_on_top_of_each():
    photo = ["RandomAffine", "RandomResizedCrop", "RandomFlip", "GaussianBlur", "ColorJitter", "RandomErasing"]
    assert names(augmentation("augmentation=none")) == []
    assert names(augmentation("augmentation=affine")) == ["RandomAffine"]
    assert names(augmentation("augmentation=photo")) == photo
    for choice in ("none", "affine", "photo"):
        composed = augmentation(f"augmentation={choice}", "augmentation.affine.degrees=20")
        assert composed.transforms[0].degrees == 20
    assert names(augmentation("augmentation=photo", "augmentation.crop=null", "~augmentation.blur")) == [
        name for name in photo if name not in ("RandomResizedCrop", "GaussianBlur")
    ]


def test_a_transform_of_ones_own_takes_one_class_and_one_line(images):
    added = f"+augmentation.invert._target_={__name__}.Invert"
    composed = augmentation("augmentation=none", added)
    assert names(composed) == ["Invert"]
    assert torch.equal(composed(images, rng.generator("test", 0)), 1 - images)
    assert names(augmentation("augmentation=affine", added)) == ["RandomAffine", "Invert"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("augmentation.affine=5", "affine=5"),
        ("+augmentation.sharpen=[1]", r"sharpen=\[1\]"),
        ("+augmentation.sharpen={amount:1}", "sharpen="),
    ],
)
def test_what_is_no_transform_is_refused_by_its_name(override, message):
    with pytest.raises(ValueError, match=rf"^{message}.*_target_"):
        augmentation(override)

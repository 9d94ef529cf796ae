"""MixUp and CutMix give every label the share that its image has."""

import pytest
import torch

from imgclf.core import rng
from imgclf.transforms.compose import Compose
from imgclf.transforms.mixing import CutMix, MixUp

LABELS = torch.arange(400) % 4


def mixed_by(*transforms: MixUp | CutMix) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, all of whose values say their class, and the labels, after mixing."""
    images = (LABELS / 4).view(-1, 1, 1, 1).repeat(1, 2, 9, 7)
    return Compose(transforms).mix(images, LABELS, 4, rng.generator("test", 0))


@pytest.mark.parametrize("transforms", [[MixUp(0.5)], [CutMix(0.5)], [MixUp(0.25), CutMix(0.25)]])
def test_every_label_gets_the_share_that_its_image_has(transforms):
    mixed, targets = mixed_by(*transforms)
    torch.testing.assert_close(targets.sum(1), torch.ones(400))
    torch.testing.assert_close((targets * torch.arange(4) / 4).sum(1), mixed.mean((1, 2, 3)))
    changed = (targets.amax(1) < 1).sum()
    assert 100 < int(changed) < 200  # of the half that is mixed, a quarter meets its own class
    own = targets.gather(1, LABELS[:, None])[:, 0]
    assert own.min() < 0.2  # an image may become nearly all another's


def test_cutmix_pastes_and_mixup_blends():
    pasted, _ = mixed_by(CutMix(0.5))
    assert (pasted * 4 == (pasted * 4).round()).all()
    assert torch.equal(pasted[:, 0], pasted[:, 1])
    blended, _ = mixed_by(MixUp(0.5))
    assert blended.flatten(1).std(1).max() < 1e-6


def test_an_image_gets_one_of_the_two():
    mixed, _ = mixed_by(MixUp(0.5), CutMix(0.5))
    blended = ((mixed * 4 - (mixed * 4).round()).abs() > 1e-5).flatten(1)
    assert torch.equal(blended.any(1), blended.all(1))  # nothing that is blended has a rectangle as well
    assert 100 < int(blended.any(1).sum()) < 200


def test_one_transform_is_the_same_alone_and_composed():
    images, labels = torch.rand(8, 1, 5, 5), torch.arange(8) % 3
    alone = MixUp(0.7)(images, labels, 3, rng.generator("test", 0))
    composed = Compose([MixUp(0.7)]).mix(images, labels, 3, rng.generator("test", 0))
    assert all(torch.equal(one, other) for one, other in zip(alone, composed, strict=True))


def test_probabilities_of_more_than_one_in_sum_are_refused_by_name():
    with pytest.raises(ValueError, match=r"^p=0\.6 of MixUp and p=0\.5 of CutMix: .* at most 1 in sum"):
        Compose([MixUp(0.6), CutMix(0.5)])
    Compose([MixUp(0.6), CutMix(0.4)])

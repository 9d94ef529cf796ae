import pytest
import torch

from imgclf.data.digits import Digits
from imgclf.data.noisy import NoisyImages
from imgclf.data.splits import split_fold, split_holdout


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.3, 0.5, 0.75])
def test_groups_stay_together_and_classes_are_balanced(fraction, seed):
    generator = torch.Generator().manual_seed(seed)
    owners = torch.randint(0, 300, (1000,), generator=generator)
    labels = (owners % 3 == 0).long()  # one class a patient
    stay, held = split_holdout(labels, fraction, seed, [f"p{owner}" for owner in owners.tolist()])
    assert sorted(torch.cat([stay, held]).tolist()) == list(range(1000))
    assert not set(owners[stay].tolist()) & set(owners[held].tolist())
    assert len(held) / 1000 == pytest.approx(fraction, abs=0.04)
    assert float(labels[held].double().mean()) == pytest.approx(float(labels.double().mean()), abs=0.04)
    assert not torch.equal(stay, stay.sort().values)  # in random order: a sample may be taken from the front
    again = split_holdout(labels, fraction, seed, [f"p{owner}" for owner in owners.tolist()])
    assert torch.equal(again[1], held)


def test_another_seed_holds_out_others():
    labels, names = torch.arange(100) % 2, [f"{i // 2}" for i in range(100)]
    first, second = (set(split_holdout(labels, 0.2, seed, names)[1].tolist()) for seed in (0, 1))
    assert first != second


def test_without_groups_the_share_is_exact_and_stratified():
    labels = (torch.arange(100) % 4 == 0).long()
    _, held = split_holdout(labels, 0.2, 0)
    assert len(held) == 20
    assert int(labels[held].sum()) == 5


def test_impossible_shares_are_refused():
    with pytest.raises(ValueError, match=r"^test_fraction=0\.99: .*empty"):
        split_holdout(torch.arange(10) % 2, 0.99, 0, name="test_fraction")
    with pytest.raises(ValueError, match=r"^val_fraction=0\.2: .*few groups"):
        split_holdout(torch.arange(10) % 2, 0.2, 0, ["one"] * 10)
    with pytest.raises(ValueError, match="a class has too few groups"):
        split_holdout(torch.arange(10) // 5, 0.2, 0, ["a"] * 5 + list("bcdef"))


def test_a_rare_class_is_on_both_sides_and_a_single_image_stays():
    labels = torch.tensor([0] * 200 + [1] * 2 + [2])
    for seed in range(20):
        kept, held = split_holdout(labels, 0.1, seed)
        assert sorted(torch.cat([kept, held]).tolist()) == list(range(203))
        assert set(labels[kept].tolist()) == {0, 1, 2}
        assert set(labels[held].tolist()) == {0, 1}
        assert len(held) == 21


def test_more_classes_than_held_out_images_still_leave_every_class_in_training():
    labels = torch.arange(100) // 2
    kept, held = split_holdout(labels, 0.2, 0)
    assert set(labels[kept].tolist()) == set(range(50))
    assert len(held) == 20


@pytest.mark.parametrize("grouped", [False, True])
def test_copies_stay_on_one_side(grouped):
    labels = torch.arange(120) % 3
    digests = [bytes([row % 90]) for row in range(120)]  # the last thirty are copies of the first
    groups = [f"{row // 2}" for row in range(120)] if grouped else None
    for seed in range(5):
        kept, held = split_holdout(labels, 0.25, seed, groups, digests)
        assert sorted(torch.cat([kept, held]).tolist()) == list(range(120))
        assert not {digests[row] for row in kept.tolist()} & {digests[row] for row in held.tolist()}
        if groups:
            assert not {groups[row] for row in kept.tolist()} & {groups[row] for row in held.tolist()}


def test_without_copies_the_digests_change_nothing():
    labels = torch.arange(90) % 3
    plain, careful = (
        split_holdout(labels, 0.2, 1),
        split_holdout(labels, 0.2, 1, None, [bytes([row]) for row in range(90)]),
    )
    assert all(torch.equal(one, other) for one, other in zip(plain, careful, strict=True))


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_are_disjoint_balanced_and_keep_copies_and_groups_together(grouped):
    labels = torch.arange(400) % 2
    digests = [f"{row % 300}".encode() for row in range(400)]  # the last hundred are copies of the first
    groups = [f"{row // 4}" for row in range(400)] if grouped else None
    held_out = []
    for fold in range(5):
        kept, held = split_fold(labels, 5, fold, 0, groups, digests)
        assert sorted(torch.cat([kept, held]).tolist()) == list(range(400))
        assert float(labels[held].double().mean()) == pytest.approx(0.5, abs=0.05)
        assert len(held) == pytest.approx(80, abs=20)
        for names in (digests, groups) if groups else (digests,):
            assert not {names[row] for row in kept.tolist()} & {names[row] for row in held.tolist()}
        held_out += held.tolist()
    assert sorted(held_out) == list(range(400))  # each row is in exactly one fold
    assert not torch.equal(split_fold(labels, 5, 0, 1, groups)[1], split_fold(labels, 5, 0, 0, groups)[1])


@pytest.mark.parametrize(
    ("labels", "groups", "said"),
    [
        ([0] * 9 + [1] * 3, None, "a class has only 3 images; give at most 3"),
        ([0] * 9 + [1], None, "a class has only 1 image; leave folds"),
        ([0] * 9 + [1] * 9, [*"abcdefghi", *"jjjkkklll"], "a class has only 3 groups; give at most 3"),
    ],
)
def test_more_folds_than_a_class_allows_are_refused(labels, groups, said):
    with pytest.raises(ValueError, match=f"^folds=5: {said}"):
        split_fold(torch.tensor(labels), 5, 0, 0, groups)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"folds": 1, "fold": 0}, "folds=1: give a whole number from 2 up"),
        ({"folds": 5, "fold": 5}, "fold=5: give a whole number from 0 to 4"),
        ({"folds": 5, "fold": -1}, "fold=-1: give a whole number from 0 up"),
        ({"fold": 1}, "fold=1: say of how many, as in folds=5"),
        ({"folds": 5}, "folds=5: say which one is for validation"),
    ],
)
def test_a_fold_is_one_of_the_folds(options, said):
    with pytest.raises(ValueError, match=f"^{said}"):
        Digits(**options)
    with pytest.raises(ValueError, match=r"^folds=5: protocol=larochelle"):
        NoisyImages(protocol="larochelle", folds=5, fold=0)

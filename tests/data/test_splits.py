import pytest
import torch

from imgclf.data.splits import split_holdout


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

import torch

from imgclf.core import rng


def test_derive_is_a_fixed_function_of_its_key():
    assert rng.derive_seed("noise", 1, 2, 3) == rng.derive_seed("noise", 1, 2, 3)
    assert len({rng.derive_seed("noise", a, b) for a in range(30) for b in range(30)}) == 900
    assert 0 <= rng.derive_seed("noise", 0) < 2**63


def test_streams_and_keys_of_other_lengths_never_meet():
    keys = [(stream, *(0,) * length) for stream in ("order", "noise", "dropout", "evaluation") for length in range(5)]
    assert len({rng.derive_seed(*key) for key in keys}) == len(keys)


def test_random_bytes_are_uniform_and_independent():
    values = rng.random_bytes((101, 999), torch.device("cpu"), rng.generator("test", 0))
    assert values.shape == (101, 999)
    assert values.dtype == torch.uint8
    counts = torch.bincount(values.flatten().int(), minlength=256).double()
    chi_squared = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert 165 < chi_squared < 365  # 255 degrees of freedom, five deviations
    centred = values.double() - 127.5
    for lag in range(1, 9):  # eight bytes come from one draw
        correlation = (centred[:, lag:] * centred[:, :-lag]).mean() / centred.var()
        assert abs(correlation) < 0.02

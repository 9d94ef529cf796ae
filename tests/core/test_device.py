import pytest
import torch

from imgclf.core.device import choose_device


@pytest.mark.parametrize(
    ("accelerator", "found", "chosen"),
    [
        *(("auto", None, "cpu"), ("cpu", None, "cpu"), ("auto", "cuda", "cuda"), ("cpu", "cuda", "cpu")),
        *(("gpu", "cuda", "cuda"), ("gpu", "mps", "mps"), ("mps", "mps", "mps"), ("auto", "xpu", "cpu")),
    ],
)
def test_the_device_is_the_one_that_torch_finds(accelerator, found, chosen, monkeypatch):
    device = torch.device(found) if found else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: device)
    assert choose_device(accelerator) == torch.device(chosen)


@pytest.mark.parametrize(("accelerator", "found"), [("gpu", None), ("cuda", None), ("cuda", "mps"), ("gpu", "xpu")])
def test_a_gpu_that_is_not_there_is_refused(accelerator, found, monkeypatch):
    device = torch.device(found) if found else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: device)
    with pytest.raises(ValueError, match=f"^accelerator={accelerator}: .*use accelerator=cpu"):
        choose_device(accelerator)


def test_an_unknown_accelerator_is_refused():
    with pytest.raises(ValueError, match=r"^accelerator=tpu: choose auto, cpu or gpu"):
        choose_device("tpu")

import logging

import pytest
import torch

from imgclf.core import device as devices
from imgclf.core.device import choose_device, choose_precision, use_threads
from imgclf.models.cnn import CNN
from imgclf.models.torchvision_models import TorchvisionNetwork


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


@pytest.mark.parametrize(
    ("name", "precision"),
    [("mobilenet_v3_small", "32-true"), ("efficientnet_b0", "32-true"), ("convnext_tiny", "bf16-mixed")],
)
def test_precision_auto_is_float32_for_networks_of_depthwise_convolutions(name, precision, monkeypatch, caplog):
    monkeypatch.setattr(devices, "_cpu_is_fast_in_bfloat16", lambda: True)
    network, cpu = TorchvisionNetwork((3, 64, 64), 2, name=name), torch.device("cpu")
    with caplog.at_level(logging.INFO):
        assert choose_precision("auto", cpu, network) == precision
    assert ("precision 32-true" in caplog.text) == (precision == "32-true")
    assert choose_precision("16-mixed", cpu, network) == "16-mixed"
    assert choose_precision("auto", cpu, CNN()) == "bf16-mixed"


@pytest.mark.parametrize(("threads", "load", "warned"), [(2, 9.0, True), (2, 1.0, False), (1, 9.0, False)])
def test_a_busy_machine_is_told_of_once_where_fewer_threads_may_help(threads, load, warned, monkeypatch, caplog):
    before = torch.get_num_threads()
    monkeypatch.setattr(devices.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(devices.os, "getloadavg", lambda: (load, 0.0, 0.0))
    try:
        use_threads(threads)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert caplog.text.count("load 9 on 2 cores") == warned

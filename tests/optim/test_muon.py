import copy
import re

import pytest
import torch
from torch import nn

from imgclf.models.cnn import CNN
from imgclf.optim.muon import Muon, orthogonal


def _trained(network, optimizer, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        images = torch.rand(8, 1, 28, 28, generator=generator)
        optimizer.zero_grad()
        network(images).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("shape", [(12, 9), (32, 288), (288, 32), (16, 16)])
def test_orthogonal_keeps_directions_and_levels_their_sizes(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    result = orthogonal(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6
    assert values.max() < 1.3
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    assert torch.linalg.norm(result - left @ right) < 0.35 * torch.linalg.norm(left @ right)


def test_no_gradient_is_no_step():
    assert torch.equal(orthogonal(torch.zeros(4, 9)), torch.zeros(4, 9))


def test_hidden_weights_take_the_steps_of_torch_s_muon_for_matrices():
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(16, 4, 3, 3))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    ours = Muon([kernel, nn.Parameter(torch.ones(2, 2))], lr=0.1, weight_decay=0.2)
    torchs = torch.optim.Muon([matrix], lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        before = matrix.detach().clone()
        gradient = torch.randn(16, 4, 3, 3)
        kernel.grad, matrix.grad = gradient, gradient.flatten(1).clone()
        ours.step()
        torchs.step()
        # torch's iterations are in bfloat16
        assert (kernel.detach().flatten(1) - matrix).norm() < 0.05 * (matrix - before).norm()
        with torch.no_grad():
            matrix.copy_(kernel.flatten(1))


def test_everything_else_takes_the_steps_of_adamw():
    network = CNN(channels=[4], dropout=0.0, batch_norm=True)
    twin = copy.deepcopy(network)
    for each in (network, twin):
        each.layers[0].weight.requires_grad_(False)
    _trained(network, Muon(network.parameters(), lr=0.01, weight_decay=0.1), 4)
    _trained(twin, torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.1, fused=True), 4)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_a_position_embedding_takes_the_steps_of_adamw():
    start = [torch.rand(1, 5, 8), torch.rand(8), torch.rand(3, 8)]  # of a transformer: the embedding, a bias, the head
    ours, twins = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    optimizers = Muon(ours, lr=0.01, weight_decay=0.1), torch.optim.AdamW(twins, lr=0.01, weight_decay=0.1, fused=True)
    for _ in range(3):
        for mine, other in zip(ours, twins, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours, twins, strict=True))


def test_it_goes_on_from_its_state():
    network = CNN(channels=[4], dropout=0.0)
    optimizer = Muon(network.parameters())
    _trained(network, optimizer, 2)
    twin = copy.deepcopy(network)
    again = Muon(twin.parameters())
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert all(group["fused"] for group in again.param_groups)  # else a GPU's count of steps would go to the CPU
    for each, its in ((network, optimizer), (twin, again)):
        _trained(each, its, 2, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_a_closure_is_called_with_gradients():
    head = nn.Parameter(torch.ones(2, 3))
    optimizer = Muon([head], lr=0.1)

    def closure():
        loss = head.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 6
    assert torch.allclose(head, torch.full((2, 3), 0.9), atol=2e-3)


@pytest.mark.parametrize(
    "wrong",
    [{"momentum": 1}, {"momentum": None}, {"betas": 3}, {"betas": [0.9]}, {"betas": [0.9, -1]}, {"lr": -0.1}],
)
def test_numbers_out_of_range_are_refused(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"^{name}={re.escape(str(value))}: "):
        Muon([nn.Parameter(torch.ones(2, 2))], **wrong)

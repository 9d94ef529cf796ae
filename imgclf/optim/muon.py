"""The Muon optimizer, for matrices and convolution kernels."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from imgclf.core.validation import Rate, Strength, checked

# Jordan's coefficients make the polynomial steep at 0, so that five iterations are enough.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class Muon(Optimizer):
    """Momentum whose steps are orthogonalised, so that they change a layer equally in all directions (Jordan 2024).

    Muon updates the hidden weights: matrices and convolution kernels, but not the last one, which is the head. A kernel
    (out, in, height, width) counts as the matrix (out, in * height * width); torch's own Muon takes matrices only. The
    momentum of each is replaced by the nearest orthogonal matrix, scaled to the size of a step of AdamW (Liu et al.
    2025), so that both optimizers share one learning rate and one weight decay. AdamW updates all other parameters:
    the head, and those of one or three dimensions (biases, scales, position embeddings).

    Args:
        params: the network's parameters, in order: the last matrix is the head.
        weight_decay: decoupled, as in AdamW.
        momentum: Nesterov momentum of the hidden weights, in [0, 1).
        betas: AdamW's two betas, for the other parameters, in [0, 1).

    Example:
        >>> optimizer = Muon(network.parameters())
    """

    @checked
    def __init__(
        self,
        params: Iterable[Tensor],
        lr: Strength = 5e-3,
        weight_decay: Strength = 0.01,
        momentum: Rate = 0.95,
        betas: Sequence[Rate] = (0.9, 0.999),
    ) -> None:
        if len(betas) != 2:
            raise ValueError(f"betas={betas}: give two numbers from 0 up to, not including, 1")
        params = list(params)
        hidden = [parameter for parameter in params if parameter.ndim in (2, 4)][:-1]
        others = [parameter for parameter in params if not any(parameter is weight for weight in hidden)]
        # With "fused", torch's load_state_dict keeps AdamW's step counts on the parameters' device.
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "fused": True}
        super().__init__([{"params": hidden}, {"params": others}], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates all parameters that have a gradient; a closure computes the gradients first and gives the loss."""
        with torch.enable_grad():
            loss = closure() if closure else None
        hidden, others = self.param_groups
        self._step_hidden(hidden)
        self._step_others(others)
        return loss

    def _step_hidden(self, group: dict[str, Any]) -> None:
        for weight in group["params"]:
            if weight.grad is None:
                continue
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
            momentum = self.state[weight]["momentum"].lerp_(weight.grad, 1 - group["momentum"])
            nesterov = weight.grad.lerp(momentum, group["momentum"]).flatten(1)
            size = 0.2 * math.sqrt(max(nesterov.shape))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(orthogonal(nesterov).view_as(weight), alpha=-group["lr"] * size)

    def _step_others(self, group: dict[str, Any]) -> None:
        parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter].update(zeros, step=torch.zeros((), device=parameter.device))
        states = [self.state[parameter] for parameter in parameters]
        adamw(
            params=parameters,
            grads=[parameter.grad for parameter in parameters],
            exp_avgs=[state["exp_avg"] for state in states],
            exp_avg_sqs=[state["exp_avg_sq"] for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def orthogonal(matrix: Tensor) -> Tensor:
    """Approximates the orthogonal matrix nearest to a float (M, N) matrix, by Newton-Schulz iterations.

    The result's singular values are between 0.6 and 1.3, except where the matrix's own are close to 0.
    """
    a, b, c = QUINTIC
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp_min(1e-7)
    gram, product = wide @ wide.T, torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    # A polynomial in the Gram matrix, which is several times smaller than a kernel, is the product of all iterations.
    for _ in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    wide = product @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide

"""The Muon optimizer, for convolutions too."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's: steepest at 0, so that five iterations are enough
ITERATIONS = 5


class Muon(Optimizer):
    """Steps that change a layer in all directions alike (Jordan et al. 2024).

    They are for matrices and kernels of convolutions but the last; all other parameters (of one dimension or three:
    biases, scales, position embeddings) take AdamW's. torch's own Muon takes matrices only; here a kernel (out, in,
    height, width) is the matrix (out, in * height * width). Its momentum is replaced by the nearest orthogonal matrix,
    of the size that a step of AdamW has (Liu et al. 2025), so that one rate and one weight decay serve both.

    Args:
        params: of the network, the last layer's last.
        lr: learning rate.
        weight_decay: decoupled, as AdamW's.
        momentum: of hidden weights, Nesterov's.
        betas: of all others.

    Raises:
        ValueError: ``momentum`` or ``betas`` out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        shares = [momentum, *betas] if isinstance(betas, list | tuple) else []
        if len(shares) != 3 or not all(isinstance(share, int | float) and 0 <= share < 1 for share in shares):
            raise ValueError(
                f"optimizer.momentum={momentum}, optimizer.betas={betas}: give one number and two, from 0 up to, not "
                "including, 1"
            )
        params = list(params)
        hidden = [parameter for parameter in params if parameter.ndim in (2, 4)][:-1]
        known = {id(parameter) for parameter in hidden}
        others = [parameter for parameter in params if id(parameter) not in known]
        # torch's load_state_dict looks at "fused" to keep AdamW's count of steps on the parameters' device.
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "fused": True}
        super().__init__([{"params": hidden}, {"params": others}], defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; ``closure``, if given, computes the loss and the gradients first. Returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        hidden, others = self.param_groups
        self._step_hidden(hidden)
        self._step_others(others)
        return loss

    def _step_hidden(self, group: dict[str, Any]) -> None:
        for weight, gradient in _with_gradients(group):
            state = self.state[weight]
            if not state:
                state["momentum"] = torch.zeros_like(weight)
            momentum = state["momentum"].lerp_(gradient, 1 - group["momentum"])
            ahead = gradient.lerp(momentum, group["momentum"]).flatten(1)
            size = 0.2 * math.sqrt(max(ahead.shape))
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(orthogonal(ahead).view_as(weight), alpha=-group["lr"] * size)

    def _step_others(self, group: dict[str, Any]) -> None:
        pairs = _with_gradients(group)
        for parameter, _ in pairs:
            if not self.state[parameter]:
                zeros = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
                self.state[parameter].update(zeros, step=torch.zeros((), device=parameter.device))
        averages, squares, steps = (
            [self.state[parameter][name] for parameter, _ in pairs] for name in ("exp_avg", "exp_avg_sq", "step")
        )
        adamw(
            [parameter for parameter, _ in pairs],
            [gradient for _, gradient in pairs],
            averages,
            squares,
            [],
            steps,
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
    """About U V^T of a matrix U S V^T, float (M, N), by Newton-Schulz: 0.6 to 1.3 for 1 where S is not near 0.

    Each iteration multiplies by a polynomial in the Gram matrix. Those are gathered first: a kernel's Gram matrix is
    several times smaller than the kernel.
    """
    a, b, c = QUINTIC
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp_min(1e-7)
    gram, product = wide @ wide.T, torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    for _ in range(ITERATIONS):
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        product = factor @ product
        gram = factor @ gram @ factor
    wide = product @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def _with_gradients(group: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    return [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]

"""Muon (Jordan 2024), each update of the size of AdamW's (Moonshot, 2502.16982), its products in a type the machine is
quick at.

torch has a Muon, and this is the same to the last bit where bf16 is that type. Torch's multiplies in bf16 everywhere:
on a processor without instructions for it that is a hundred times slower than float32, and the quickstart's step, which
takes one second, takes twelve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# a quintic whose slope at zero is steep: five rounds bring every singular value to between about .7 and 1.2
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5
FLOOR = 1e-7  # of the norm: a gradient of zeros has no direction
ADAMW_RMS = 0.2  # root mean square of a typical AdamW update


def bare(method: Any) -> Any:
    """A method of torch's optimizers without what it wraps around it for its compiler: the first call of any would
    import that compiler, 1.4 of the 5.8 seconds of a command that trains one step."""
    return getattr(method, "__wrapped__", method)


class Muon(torch.optim.Optimizer):
    """For matrices alone. ``dtype`` is that of the products; momentum and weights stay as the parameters are."""

    add_param_group = bare(torch.optim.Optimizer.add_param_group)
    zero_grad = bare(torch.optim.Optimizer.zero_grad)

    def __init__(
        self, params: Iterable[Tensor], lr: float, weight_decay: float, momentum: float, dtype: torch.dtype
    ) -> None:
        super().__init__(list(params), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim != 2:
                    raise ValueError(f"Muon takes matrices; one parameter has the shape {tuple(parameter.shape)}")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """M <- mu M + (1 - mu) G; W <- (1 - lr decay) W - lr .2 sqrt(max(A, B)) orthogonal((1 - mu) G + mu M)."""
        if closure is not None:
            raise ValueError("Muon.step takes no closure: gradients are there when it is called")
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                kept = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
                update = orthogonal(parameter.grad.lerp(kept, momentum), self.dtype)
                parameter.mul_(1 - lr * group["weight_decay"])
                parameter.add_(update, alpha=-lr * ADAMW_RMS * math.sqrt(max(parameter.shape)))


def orthogonal(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """(A, B) -> about U V^T of its singular value decomposition, (A, B) in ``dtype``, by Newton-Schulz rounds
    X <- a X + (b X X^T + c (X X^T)^2) X."""
    a, b, c = COEFFICIENTS
    x = matrix.to(dtype, copy=True)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x.div_(x.norm().clamp(min=FLOOR))
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x

"""Rotary positions, rotate-half convention (SPEC A.4, A3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fledge.model.passes import rotate_pairs


class Rotary:
    """Turns pairs (i, i + d/2) of a head by position x theta^(-2i/d). Angles in float32, results in the given dtype."""

    def __init__(self, head_dim: int, theta: float) -> None:
        self.head_dim, self.theta = head_dim, theta

    def tables(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """positions (N,) -> cos and sin (N, 1, d); the first half of sin carries the minus of rotate-half."""
        exponents = torch.arange(0, self.head_dim, 2, device=positions.device, dtype=torch.float32) / self.head_dim
        angles = positions.float()[:, None] * (1.0 / self.theta**exponents)
        cos, sin = angles.cos(), angles.sin()
        full_cos = torch.cat([cos, cos], -1)[:, None]
        full_sin = torch.cat([-sin, sin], -1)[:, None]
        return full_cos.to(dtype), full_sin.to(dtype)


class _Rotate(torch.autograd.Function):
    """A rotation's gradient is the rotation back, so nothing but the tables is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return rotate_pairs(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotate_pairs(g, cos, -sin), None, None


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (N, heads, d) with tables of (N, 1, d), as `Rotary.tables` makes them."""
    out: Tensor = _Rotate.apply(x, cos, sin)
    return out

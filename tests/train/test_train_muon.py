"""Muon: torch's to the last bit in bf16, the literal formula in float32, and quick where there are no bf16 products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fledge.core.machine import compute_dtype
from fledge.train.muon import Muon, orthogonal
from fledge.train.optimizer import OptimizerConfig, make_optimizers

SHAPES = [(24, 24), (16, 40), (40, 16), (1, 7)]


def gradients(shape: tuple[int, int], steps: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for _ in range(steps)]


def trained(optimizer: torch.optim.Optimizer, weight: Tensor, given: list[Tensor]) -> Tensor:
    for gradient in given:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("shape", SHAPES)
def test_in_bf16_it_is_torchs(shape: tuple[int, int]) -> None:
    given = gradients(shape, 4)
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    mine = Muon([ours], lr=0.02, weight_decay=0.1, momentum=0.9, dtype=torch.bfloat16)
    peer = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    assert torch.equal(trained(mine, ours, given), trained(peer, theirs, given))


@pytest.mark.parametrize("shape", SHAPES)
def test_in_float32_it_is_the_formula(shape: tuple[int, int]) -> None:
    """The rounds act on singular values alone: X = U s V^T -> U (a s + b s^3 + c s^5) V^T. Here by the decomposition,
    in float64."""
    (matrix,) = gradients(shape, 1)
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    torch.testing.assert_close(orthogonal(matrix, torch.float32).double(), u @ torch.diag(s) @ v, rtol=0, atol=1e-4)


def test_the_gradient_is_left_as_it_is_and_zeros_give_no_update() -> None:
    weight = nn.Parameter(torch.ones(8, 4))
    optimizer = Muon([weight], lr=0.1, weight_decay=0.0, momentum=0.9, dtype=torch.float32)
    trained(optimizer, weight, [torch.zeros(8, 4)])
    assert torch.equal(weight.detach(), torch.ones(8, 4))
    (gradient,) = gradients((8, 4), 1)
    weight.grad = gradient.clone()
    optimizer.step()
    assert torch.equal(weight.grad, gradient)
    assert torch.equal(optimizer.state[weight]["momentum_buffer"], torch.zeros(8, 4).lerp(gradient, 1 - 0.9))


def test_products_are_in_the_type_of_the_machine(tiny_decoder: nn.Module) -> None:
    """Where bf16 has no instructions, products in it are a hundred times slower than in float32."""
    (muon, _) = make_optimizers(tiny_decoder, OptimizerConfig(name="muon", lr=1e-3))
    assert isinstance(muon, Muon)
    assert muon.dtype == compute_dtype("auto")
    with pytest.raises(ValueError, match="matrices"):
        Muon([nn.Parameter(torch.ones(3))], lr=0.1, weight_decay=0.0, momentum=0.9, dtype=torch.float32)

"""Every path of attention against the plain formula: outputs and gradients, for layouts of many shapes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from model_cases import LAYOUTS, attend, config

from fledge.core.native import small_products
from fledge.model.attention import plain_attention
from fledge.model.layout import Layout
from fledge.model.rotary import Rotary
from fledge.model.tiles import use_tiles

SHAPE = config()


@pytest.fixture(params=["blocks", "tiles"], autouse=True)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    if why := use_tiles(request.param == "tiles"):
        assert not small_products(), why  # what computes wrong values refuses itself: no reason to skip
        pytest.skip(f"attention over tiles is not to be had here: {why}")
    yield request.param
    use_tiles(False)


def inputs(layout: Layout, dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    heads = (SHAPE.num_attention_heads, SHAPE.num_key_value_heads, SHAPE.num_key_value_heads)
    # twice the usual scale: weights far from uniform
    return [(2 * torch.randn(layout.tokens, n, SHAPE.head_dim, generator=generator)).to(dtype) for n in heads]


def both(layout: Layout, dtype: torch.dtype, **plan: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Output and the three gradients, packed; and plain in float32 on the same numbers."""
    upstream = torch.randn(layout.tokens, SHAPE.num_attention_heads, SHAPE.head_dim)
    results = []
    for packed in (True, False):
        leaves = [x.clone().to(dtype if packed else torch.float32).requires_grad_() for x in inputs(layout, dtype)]
        if packed:
            out = attend(layout, SHAPE, dtype, **plan)(0, *leaves)
        else:
            out = plain_attention(layout, Rotary(SHAPE.head_dim, SHAPE.rope_theta), *leaves)
        out.backward(upstream.to(out.dtype))
        results.append([out.detach().float(), *(leaf.grad.float() for leaf in leaves)])  # type: ignore[union-attr]
    return results[0], results[1]


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("block", [128, 32])
def test_outputs_and_gradients_equal_the_plain_formula(name: str, block: int) -> None:
    for got, expected in zip(*both(LAYOUTS[name], torch.float32, block=block), strict=True):
        torch.testing.assert_close(got, expected, atol=4e-5, rtol=1e-5)


def test_long_roots_go_to_the_fused_kernel_and_agree() -> None:
    layout = Layout.of([40, 300, 5, 9, 260], [-1, -1, -1, 2, -1])
    for got, expected in zip(*both(layout, torch.float32, long=256), strict=True):
        torch.testing.assert_close(got, expected, atol=5e-5, rtol=1e-5)  # sums of 300 in another order


@pytest.mark.parametrize("name", ["documents", "a tree", "random 0"])
def test_bf16_stays_near_float32(name: str) -> None:
    for got, expected in zip(*both(LAYOUTS[name], torch.bfloat16), strict=True):
        assert ((got - expected).norm() / expected.norm()).item() < 0.02


def test_order_of_segments_does_not_matter() -> None:
    """The same documents packed in two orders give the same outputs."""
    a, b = Layout.of([5, 40, 9]), Layout.of([9, 5, 40])
    q, k, v = inputs(a, torch.float32)
    to_b = torch.cat([torch.arange(45, 54), torch.arange(0, 45)])
    out = attend(a, SHAPE)(0, q, k, v)
    moved = attend(b, SHAPE)(0, q[to_b], k[to_b], v[to_b])
    torch.testing.assert_close(moved, out[to_b], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_filling_rows_change_nothing(name: str) -> None:
    layout = LAYOUTS[name]
    leaves = inputs(layout, torch.float32)
    filled = [torch.cat([x, torch.full((7, *x.shape[1:]), 3.0)]).requires_grad_() for x in leaves]
    upstream = torch.randn(layout.tokens, SHAPE.num_attention_heads, SHAPE.head_dim)
    plain = [x.clone().requires_grad_() for x in leaves]
    out = attend(layout, SHAPE)(0, *plain)
    out.backward(upstream)
    wide = attend(layout, SHAPE, rows=layout.tokens + 7)(0, *filled)
    assert len(wide) == layout.tokens + 7
    wide[: layout.tokens].backward(upstream)
    assert torch.equal(wide[: layout.tokens], out)
    for leaf, other in zip(filled, plain, strict=True):
        assert leaf.grad is not None
        assert torch.equal(leaf.grad[: layout.tokens], other.grad)
        assert not leaf.grad[layout.tokens :].any()

"""The passes between products: the literal formulas, and the same values when compiled, whatever the number of rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fledge.model import passes

H, V = 24, 56


@pytest.fixture
def compiled() -> Iterator[None]:
    if why := passes.compile_passes(True):
        pytest.skip(f"nothing can be compiled here: {why}")
    yield
    passes.compile_passes(False)


def arguments(name: str, rows: int, dtype: torch.dtype) -> tuple[object, ...]:
    g = torch.Generator().manual_seed(rows)
    make = lambda *shape: torch.randn(*shape, generator=g).to(dtype)  # noqa: E731
    x, weight, logits = make(rows, H), make(H), make(rows, V)
    column = torch.rand(3, rows, generator=g)
    lse = logits.float().mul(0.7).logsumexp(-1)
    return {
        "rms_norm": (x, weight, 1e-6),
        "rms_norm_backward": (make(rows, H), x, weight, torch.rand(rows, 1, generator=g) + 0.5),
        "rotate_pairs": (make(rows, 8, 6)[:, :4], make(rows, 1, 6), make(rows, 1, 6)),
        "gate": (make(rows, 2 * H),),
        "gate_backward": (make(rows, H), make(rows, 2 * H)),
        "normalisers": (logits, 0.7),
        "entropies": (logits, 0.7, lse),
        "shares": (logits, 0.7, lse, column[0]),
        "shares_and_entropy": (logits, 0.7, lse, column[0], column[1], column[2]),
    }[name]


NAMES = ["rms_norm", "rms_norm_backward", "rotate_pairs", "gate", "gate_backward", "normalisers", "entropies", "shares",
         "shares_and_entropy"]  # fmt: skip


def test_every_pass_is_tested() -> None:
    assert [name for name, value in vars(passes).items() if isinstance(value, passes.OnePass)] == NAMES


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_compiled_as_plain(name: str, dtype: torch.dtype) -> None:
    one_pass = getattr(passes, name)
    torch._dynamo.utils.counters.clear()
    for rows in (7, 2, 33, 4000, 1):
        given = arguments(name, rows, dtype)
        got, want = one_pass(*given), one_pass.plain(*given)
        for a, b in zip(_tuple(got), _tuple(want), strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            scale = float(b.float().abs().max())
            torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=scale * (1e-6 if dtype.is_floating_point and
                                       dtype == torch.float32 else 2e-2))  # fmt: skip
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # one for any number of rows


@pytest.mark.usefixtures("compiled")
def test_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    """What a resumed run computes must not depend on the batch that was compiled first (promise 6)."""
    for name in NAMES:
        one_pass = getattr(passes, name)
        given = arguments(name, 300, torch.bfloat16)
        whole = _tuple(one_pass(*given))
        part = _tuple(one_pass(*(x[40:45] if isinstance(x, Tensor) and len(x) == 300 else x for x in given)))
        for a, b in zip(whole, part, strict=True):
            assert torch.equal(a[40:45], b), name


def test_without_a_compiler_they_run_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(passes.torch.cuda, "is_available", lambda: False)
    passes.missing.cache_clear()
    try:
        assert "C++ compiler" in passes.compile_passes(True)
        assert not passes.OnePass.compiled
    finally:
        passes.missing.cache_clear()


def test_formulas() -> None:
    """Forward and backward against autograd of the literal formula, in float64."""
    g = torch.Generator().manual_seed(0)
    x, upstream = torch.randn(2, 5, 2 * H, generator=g, dtype=torch.float64)
    x.requires_grad_()
    literal = F.silu(x[:, :H]) * x[:, H:]
    assert torch.allclose(passes.gate.plain(x), literal)
    (want,) = torch.autograd.grad(literal, x, upstream[:, :H])
    assert torch.allclose(passes.gate_backward.plain(upstream[:, :H], x.detach()), want)
    cos, sin = torch.randn(2, 5, 1, 6, generator=g)
    pairs = torch.randn(5, 4, 6, generator=g)
    low, high = pairs.chunk(2, -1)
    assert torch.allclose(passes.rotate_pairs.plain(pairs, cos, sin), pairs * cos + torch.cat([high, low], -1) * sin)


def _tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)

"""The passes between products: the literal formulas, and the same values when compiled, whatever the number of rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fledge.core.machine import cpu_flags, cxx_compiler
from fledge.model import pass_loops, passes

H, V = 24, 56
LOOPS = ["rms_norm", "rms_norm_backward", "rotate_pairs", "gate", "gate_backward"]  # that we have of our own


OURS, TORCHS = "by our loops", "by torch's compiler"


@pytest.fixture(params=[OURS, TORCHS])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if why := passes.compile_passes(True):
        pytest.skip(f"nothing can be compiled here: {why}")
    if request.param == OURS:
        needs_loops()
    else:
        monkeypatch.setattr(pass_loops, "serve", lambda *tensors: False)
    yield request.param
    passes.compile_passes(False)


def needs_loops() -> None:
    if not (cxx_compiler() and {"avx512f", "avx512bw", "avx512dq", "avx512vl"} <= cpu_flags()):
        pytest.skip("no C++ compiler, or a processor without AVX-512")
    assert pass_loops.missing() == ""


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("compiled", "name"), [*((OURS, n) for n in LOOPS), *((TORCHS, n) for n in NAMES)], indirect=["compiled"]
)
def test_compiled_as_plain(compiled: str, name: str, dtype: torch.dtype) -> None:
    one_pass = getattr(passes, name)
    torch._dynamo.utils.counters.clear()
    for rows in (7, 2, 33, 4000, 1):
        given = arguments(name, rows, dtype)
        got, want = one_pass(*given), one_pass.plain(*given)
        if name == "rms_norm_backward":  # any rows that add up to the weight's gradient
            got, want = ((d_x, rows.sum(0, dtype=dtype)) for d_x, rows in (got, want))
        for a, b in zip(_tuple(got), _tuple(want), strict=True):
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            scale = float(b.float().abs().max())
            torch.testing.assert_close(a.float(), b.float(), rtol=0, atol=scale * (1e-6 if dtype.is_floating_point and
                                       dtype == torch.float32 else 2e-2))  # fmt: skip
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == (compiled == TORCHS)  # one for any number of rows


def test_a_row_does_not_depend_on_the_rows_beside_it(compiled: str) -> None:
    """What a resumed run computes must not depend on the batch that was compiled first (promise 6)."""
    for name in NAMES:
        one_pass = getattr(passes, name)
        given = arguments(name, 300, torch.bfloat16)
        whole = _tuple(one_pass(*given))
        part = _tuple(one_pass(*(x[40:45] if isinstance(x, Tensor) and len(x) == 300 else x for x in given)))
        if name == "rms_norm_backward" and compiled == OURS:
            whole, part = whole[:1], part[:1]
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "width"), [(1, 2), (3, 16), (64, 30), (65, 34), (700, 96)])
def test_our_loops_against_float64(dtype: torch.dtype, rows: int, width: int) -> None:
    """Every loop, with ends of vectors and of blocks of rows, in ranges where exponentials vanish and overflow."""
    needs_loops()
    g = torch.Generator().manual_seed(rows)
    x, up, both = ((torch.randn(rows, w, generator=g) * 10).to(dtype) for w in (width, width, 2 * width))
    both[0, :2] = torch.tensor([200.0, -200.0])
    weight = torch.randn(width, generator=g).to(dtype)
    exact = [t.double().requires_grad_() for t in (x, weight, both)]
    normed = F.rms_norm(exact[0], (width,), exact[1], 1e-6)
    gated = F.silu(exact[2][:, :width]) * exact[2][:, width:]
    wanted = (normed, *torch.autograd.grad(normed, exact[:2], up.double()), gated,
              *torch.autograd.grad(gated, exact[2], up.double()))  # fmt: skip
    out, scale = pass_loops.rms_norm(x, weight, 1e-6)
    d_x, sums = pass_loops.rms_norm_backward(up, x, weight, scale)
    found = (out, d_x, sums.sum(0), pass_loops.gate(both), pass_loops.gate_backward(up, both))
    for a, b in zip(found, wanted, strict=True):
        rounding = 2**-8 if a.dtype == torch.bfloat16 else 2e-6
        assert float((a.double() - b.detach()).abs().max()) <= rounding * max(float(b.detach().abs().max()), 1e-30)
    assert sums.shape == (-(-rows // 64), width)


def test_our_loops_with_other_strides_threads_and_values() -> None:
    needs_loops()
    g = torch.Generator().manual_seed(0)
    wide = torch.randn(900, 3, 8, 64, generator=g).bfloat16()
    x, weight = wide[:, 1].reshape(900, 512), torch.randn(512, generator=g).bfloat16()
    tables = torch.randn(2, 900, 1, 64, generator=g).bfloat16()
    scale = torch.rand(900, 1, generator=g)

    def everything(x: Tensor, heads: Tensor) -> list[Tensor]:
        return [
            *pass_loops.rms_norm(x, weight, 1e-6),
            *pass_loops.rms_norm_backward(x, x, weight, scale),
            pass_loops.gate(x),
            pass_loops.gate_backward(x[:, :256], x),
            pass_loops.rotate_pairs(heads, *tables),
        ]

    at_rest = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = everything(x, wide[:, 1])
    torch.set_num_threads(3)
    together = everything(x.T.contiguous().T, wide[:, 1].contiguous())
    torch.set_num_threads(at_rest)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
    bad = x.clone()
    bad[5, 7] = float("nan")
    for out in everything(bad, bad.view(900, 8, 64)):
        assert out.isnan().any()
        assert len(out) < 900 or not out[6:].isnan().any()


def test_our_loops_refuse_what_does_not_fit() -> None:
    needs_loops()
    x = torch.zeros(4, 8)
    with pytest.raises(ValueError, match=r"\(7,\) where \(8,\)"):
        pass_loops.rms_norm(x, torch.zeros(7), 1e-6)
    with pytest.raises(ValueError, match="expected"):
        pass_loops.gate_backward(x, x)
    with pytest.raises(ValueError, match="expected"):
        pass_loops.rotate_pairs(x.view(4, 2, 4), torch.zeros(3, 1, 4), torch.zeros(4, 1, 4))
    assert not pass_loops.serve(x.double())
    assert not pass_loops.serve(x, torch.zeros(8, dtype=torch.bfloat16))
    assert pass_loops.serve(x.bfloat16(), x.bfloat16(), torch.zeros(4, 1))


def _tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)

"""Attention over tiles: its plan, against the definition; and what attention's own tests do not ask of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from model_cases import LAYOUTS, attend, config, decoder

from fledge.core.errors import ConfigError
from fledge.core.machine import cpu_flags
from fledge.core.native import small_products
from fledge.model import tiles
from fledge.model.attention import make_plan, plain_attention
from fledge.model.decoder import _Split
from fledge.model.layout import Layout
from fledge.model.rotary import Rotary
from fledge.model.tiles import TILE, Meetings, TilePlan, Turns, attend_tiles, use_tiles

LONG = {**LAYOUTS, "a long document": Layout.of([700]), "long among short": Layout.of([3, 500, 90], [-1, -1, 1])}


@pytest.fixture
def _on() -> Iterator[None]:
    if why := use_tiles(True):
        # what computes wrong values refuses itself: that must not pass for a machine that lacks something
        assert not small_products(), why
        pytest.skip(f"attention over tiles is not to be had here: {why}")
    yield
    use_tiles(False)


def turns(layout: Layout, size: int, dtype: torch.dtype = torch.float32) -> Turns:
    tables = Rotary(size, 10_000.0).tables(torch.from_numpy(layout.positions), dtype)
    return Turns(tables, tables)


def said(meetings: Meetings, tokens: int) -> np.ndarray:
    """What a plan says: (n * 64, n * 64) whether the token that asks and the other meet."""
    count = -(-tokens // TILE)
    see = np.zeros((count * TILE, count * TILE), bool)
    for i in range(count):
        for pair in range(int(meetings.first[i]), int(meetings.first[i + 1])):
            j, row = int(meetings.other[pair]), int(meetings.row[pair])
            words = [int(w) for w in meetings.bits[row]] if row >= 0 else [-1] * TILE
            part = np.array([[bool(word >> bit & 1) for bit in range(TILE)] for word in words])
            assert part.any(), f"tiles {i} and {j} do not meet, but are computed"
            assert row < 0 or not part.all(), f"tiles {i} and {j} meet wholly, but bits are read for them"
            see[i * TILE : (i + 1) * TILE, j * TILE : (j + 1) * TILE] = part
    return see


@pytest.mark.parametrize("name", LONG)
def test_plan_says_who_sees_whom(name: str) -> None:
    layout = LONG[name]
    plan, n = TilePlan.of(layout), layout.tokens
    for see in (said(plan.by_query, n), said(plan.by_key, n).T):
        assert np.array_equal(see[:n, :n], layout.visible())
        assert not see[n:].any()
        assert not see[:, n:].any()


def test_plan_of_a_long_document_is_small() -> None:
    """Only the diagonal and the last tile need bits."""
    plan = TilePlan.of(Layout.of([64 * 100 + 5]))
    assert len(plan.by_query.other) == 101 * 102 // 2
    assert len(plan.by_query.bits) == 100 + 101


@pytest.mark.usefixtures("_on")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_number_of_threads_gives_the_same_bytes(dtype: torch.dtype) -> None:
    layout = LAYOUTS["random 1"]
    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(layout.tokens, n, 32, generator=generator).to(dtype) for n in (4, 2, 2)]
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaves = [x.clone().requires_grad_() for x in given]
            out = attend_tiles(*leaves, turns(layout, 32, dtype), TilePlan.of(layout))
            out.square().sum().backward()
            results.append([out.detach(), *(x.grad for x in leaves)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("_on")
def test_keys_and_values_may_be_views() -> None:
    """As `SelfAttention` hands them in: parts of one product."""
    layout, d = Layout.of([90, 70]), 16
    joined = torch.randn(layout.tokens, 6, d)
    q, k, v = joined.split([4, 1, 1], 1)
    more = (turns(layout, d), TilePlan.of(layout))
    assert torch.equal(attend_tiles(q, k, v, *more), attend_tiles(q.contiguous(), k.clone(), v.clone(), *more))


@pytest.mark.usefixtures("_on")
def test_what_is_not_a_number_comes_out() -> None:
    layout, shape = Layout.of([80, 20]), config()
    heads = (shape.num_attention_heads, shape.num_key_value_heads, shape.num_key_value_heads)
    for which in range(3):
        given = [torch.randn(layout.tokens, n, shape.head_dim) for n in heads]
        given[which][70] = float("nan")
        out = attend(layout, shape)(0, *given)
        assert out[70:80].isnan().any()
        # a value that is not a number reaches all of its tile: nothing times it is not a number either
        assert which == 2 or not (out[:70].isnan().any() or out[80:].isnan().any())


@pytest.mark.usefixtures("_on")
@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 8), (torch.float32, 7)])
def test_what_it_cannot_compute_is_refused(dtype: torch.dtype, size: int) -> None:
    given, layout = torch.randn(4, 2, size, dtype=dtype), Layout.of([4])
    with pytest.raises(ConfigError, match="compile=off"):
        attend_tiles(given, given, given, turns(layout, 8), TilePlan.of(layout))


@pytest.mark.usefixtures("_on")
def test_the_self_check_notices_wrong_values(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tiles._error() < 1e-2
    monkeypatch.setattr(Layout, "visible", lambda self: np.tril(np.ones((self.tokens, self.tokens), bool)))
    assert tiles._error() > 1e-2


def test_without_a_compiler_other_paths_are_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not small_products():
        pytest.skip("this processor, or this torch, has no small products")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for cached in (tiles.missing, tiles._library):
        cached.cache_clear()
    try:
        assert "no C++ compiler" in use_tiles(True)
        assert make_plan(Layout.of([5])).tiles is None
    finally:
        for cached in (tiles.missing, tiles._library):
            cached.cache_clear()
        use_tiles(False)


@pytest.mark.skipif("avx512f" not in cpu_flags(), reason="without AVX-512 nothing asks for small products")
def test_without_small_products_other_paths_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    tiles.missing.cache_clear()
    try:
        assert small_products() is None
        assert "small products" in use_tiles(True)
    finally:
        tiles.missing.cache_clear()
        use_tiles(False)


@pytest.mark.usefixtures("_on")
@pytest.mark.parametrize("size", [6, 20, 64, 80, 128])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_heads_of_every_size(size: int, dtype: torch.dtype) -> None:
    """Outputs and gradients against the formula in float64, from the numbers that it was given."""
    layout, generator = LAYOUTS["random 2"], torch.Generator().manual_seed(size)
    given = [torch.randn(layout.tokens, n, size, generator=generator).to(dtype).requires_grad_() for n in (4, 2, 2)]
    upstream = torch.randn(layout.tokens, 4, size, generator=generator).to(dtype)
    scale = size**-0.5
    cos, sin = Rotary(size, 10_000.0).tables(torch.from_numpy(layout.positions), dtype)
    out = attend_tiles(*given, Turns((cos * scale, sin * scale), (cos, sin)), TilePlan.of(layout))
    found = [out, *torch.autograd.grad(out, given, upstream)]
    exact = [x.detach().double().requires_grad_() for x in given]
    plain = plain_attention(layout, Rotary(size, 10_000.0), *exact)
    wanted = [plain, *torch.autograd.grad(plain, exact, upstream.double())]
    limit = 2e-6 if dtype == torch.float32 else 1e-2
    for a, b in zip(found, wanted, strict=True):
        assert float((a.detach().double() - b.detach()).norm() / b.detach().norm()) < limit


@pytest.mark.usefixtures("_on")
def test_what_does_not_match_is_refused() -> None:
    layout = Layout.of([9])
    q, plan = torch.randn(9, 2, 8), TilePlan.of(layout)
    for k, tables in ((torch.randn(9, 3, 8), turns(layout, 8)), (q.bfloat16(), turns(layout, 8)),
                      (q, turns(layout, 8, torch.bfloat16)), (q[:5], turns(layout, 8))):  # fmt: skip
        with pytest.raises(ConfigError, match="do not match"):
            attend_tiles(q, k, k, tables, plan)


@pytest.mark.usefixtures("_on")
def test_other_types_take_other_paths() -> None:
    """An engine of float16 weights in a process that trains with tiles."""
    assert make_plan(Layout.of([5]), dtype=torch.float64).tiles is None
    assert make_plan(Layout.of([5]), dtype=torch.float32).tiles is not None


@pytest.mark.usefixtures("_on")
def test_blocks_run_again_keep_their_bits() -> None:
    """Recomputed in the backward pass, attention over tiles gives the same gradient."""
    shape, layout, results = config(), LAYOUTS["documents"], []
    tokens = torch.randint(131, (layout.tokens,), generator=torch.Generator().manual_seed(0))
    for recompute in (False, True):
        model = decoder(shape)
        model.model.recompute = recompute
        model(tokens, attend(layout, shape)).square().sum().backward()
        results.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.usefixtures("_on")
def test_gradients_of_q_k_and_v_are_not_copied_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie beside each other already; what comes out is what copying would give."""
    joined = torch.randn(9, 6, 8)
    parts = joined.split([4, 1, 1], 1)
    whole, _ = _Split.backward(None, *parts)
    assert whole.data_ptr() == joined.data_ptr()
    for others in ((parts[0], parts[2], parts[1]), (parts[0].clone(), *parts[1:])):
        assert torch.equal(_Split.backward(None, *others)[0], torch.cat(others, 1))
    shape, layout, results = config(), LAYOUTS["a pair"], []
    tokens = torch.arange(layout.tokens)
    apart = tiles._Attention.backward
    for copied in (False, True):
        if copied:
            monkeypatch.setattr(
                tiles._Attention, "backward", lambda ctx, g: tuple(x if x is None else x.clone() for x in apart(ctx, g))
            )
        model = decoder(shape)
        model(tokens, attend(layout, shape)).square().sum().backward()
        results.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))

"""Attention over tiles of 64 tokens, as loops of our own (tiles.cpp), for CPUs with AVX-512.

Queries and keys are cut into tiles of the packed row, whatever segments lie in them; a plan says which tiles meet, and
where not every token sees every other, a word of 64 bits for each token says whom. So any layout is the same few loops,
no keys are gathered, and scores live in the cache of a core: kept for the backward pass is one number a query and
head, as in FlashAttention (Dao et al. 2022). The backward pass makes the scores twice, once for the gradient of the
queries and once for that of the keys: two products more, but no two threads add to one place and the result does not
depend on their number. Products are oneDNN's small ones (AMX where there is AMX), through torch.

Forward and backward of a layer in bf16, 2 cores with AMX, against the blocks of attention.py: 2.2 times the rate at
8 x 512, 2.4 at 20 to 400 tokens, 2.9 at a prompt of 512 with 8 answers of 128; in float32 1.8.
"""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, byref, c_int, c_int64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fledge.core.errors import ConfigError
from fledge.core.native import computes, load_loops, named, refusal, slopes, small_products
from fledge.model.layout import Layout

TILE = 64
DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Meetings:
    """P pairs of tiles, in the order of the tile that asks: tile i asks those of ``first[i]:first[i + 1]``."""

    first: Tensor  # (n + 1,) int64
    other: Tensor  # (P,) int32
    row: Tensor  # (P,) int32, of bits; -1 where every token of the one and of the other meet
    bits: Tensor  # (M, 64) int64: of each token of the tile that asks, which of the other's it meets


@dataclass(frozen=True)
class TilePlan:
    """Which tiles meet in a layout of N tokens: for queries, the keys they see; for keys, the queries that see them."""

    tokens: int
    by_query: Meetings
    by_key: Meetings

    @classmethod
    def of(cls, layout: Layout) -> TilePlan:
        """On the host, in numpy; about as long as a dozen passes over the tokens."""
        spans = _spans(layout)
        tiles = -(-layout.tokens // TILE)
        query, key = np.divmod(_meeting(spans, tiles), tiles)
        # tiles of one segment's middle need no bits: every token of the one comes after every token of the other
        whole = (key < query) & (spans[0].start.reshape(tiles, TILE).max(1)[query] <= key * TILE)
        whole &= (query + 1) * TILE <= layout.tokens
        bits = _bits(spans, query[~whole], key[~whole])
        row = np.full(len(query), -1, np.int32)
        row[~whole] = np.arange(len(bits), dtype=np.int32)
        row[~whole] = np.where((bits == ~np.uint64(0)).all(1), -1, row[~whole])
        order = np.argsort(key, kind="stable")
        return cls(
            layout.tokens,
            _meetings(query, key, row, bits, tiles),
            _meetings(key[order], query[order], row[order], _transposed(bits), tiles),
        )


@dataclass(frozen=True)
class _Span:
    """What each token sees: tokens from start to end. Of its own segment, or of one ancestor. Rows beyond the last
    token see nothing."""

    start: npt.NDArray[np.int64]  # (n * 64,)
    end: npt.NDArray[np.int64]


def _spans(layout: Layout) -> list[_Span]:
    """Its own segment first, then an ancestor of each depth that occurs."""
    room = -(-layout.tokens // TILE) * TILE - layout.tokens
    of, pad = layout.segment_of, lambda x: np.pad(x, (0, room))
    spans = [_Span(np.pad(layout.start[of], (0, room), mode="edge"), pad(np.arange(layout.tokens) + 1))]
    chains = [layout.ancestors(s) for s in range(layout.segments)]
    for depth in range(max(map(len, chains), default=0)):
        above = np.array([chain[depth] if depth < len(chain) else -1 for chain in chains])
        start = np.where(above >= 0, layout.start[above], 0)
        end = np.where(above >= 0, layout.start[above] + layout.length[above], 0)
        spans.append(_Span(pad(start[of]), pad(end[of])))
    return spans


def _meeting(spans: list[_Span], tiles: int) -> npt.NDArray[np.int64]:
    """Pairs in which some token sees some other, as query tile * tiles + key tile, increasing."""
    found = []
    for span in spans:
        some = np.flatnonzero(span.end > span.start)
        # tokens of one tile that see the same tiles ask once
        triple = (some // TILE, span.start[some] // TILE, (span.end[some] - 1) // TILE)
        query, first, last = np.unravel_index(np.unique(np.ravel_multi_index(triple, (tiles,) * 3)), (tiles,) * 3)
        count = last - first + 1
        steps = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        found.append(np.repeat(query * tiles + first, count) + steps)
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)


_BELOW = np.array([(1 << n) - 1 for n in range(TILE + 1)], np.uint64)  # the lowest n bits


def _bits(spans: list[_Span], query: npt.NDArray[np.int64], key: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """(M, 64), of M pairs: for each query of the tile, the keys that it sees."""
    tokens = query[:, None] * TILE + np.arange(TILE)
    base = key[:, None] * TILE
    bits = np.zeros(tokens.shape, np.uint64)
    for span in spans:
        start, end = (np.clip(x[tokens] - base, 0, TILE) for x in (span.start, span.end))
        bits |= np.where(end > start, _BELOW[end] & ~_BELOW[start], np.uint64(0))
    return bits


def _transposed(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """(M, 64) words of 64 bits -> the same, rows and bits exchanged."""
    words = bits.copy()
    for j in (32, 16, 8, 4, 2, 1):  # blocks of j by j change places with those on the other side of the diagonal
        low = np.uint64(sum(1 << n for n in range(TILE) if not n & j))
        upper, lower = np.moveaxis(words.reshape(-1, TILE // (2 * j), 2, j), 2, 0)
        other = ((upper >> np.uint64(j)) ^ lower) & low
        lower ^= other
        upper ^= other << np.uint64(j)
    return words


def _meetings(
    asks: npt.NDArray[np.int64], other: npt.NDArray[np.int64], row: npt.NDArray[np.int32],
    bits: npt.NDArray[np.uint64], tiles: int,
) -> Meetings:  # fmt: skip
    first = np.searchsorted(asks, np.arange(tiles + 1)).astype(np.int64)
    return Meetings(
        torch.from_numpy(first), torch.from_numpy(other.astype(np.int32)), torch.from_numpy(row),
        torch.from_numpy(np.ascontiguousarray(bits).view(np.int64)),
    )  # fmt: skip


class _Meetings(Structure):
    _fields_ = (("first", c_void_p), ("other", c_void_p), ("row", c_void_p), ("bits", c_void_p))


class _Call(Structure):
    _fields_ = (
        ("tokens", c_int64), ("heads", c_int64), ("key_heads", c_int64), ("size", c_int64),
        ("q_step", c_int64), ("k_step", c_int64), ("v_step", c_int64), ("d_step", c_int64),
        ("q_cos", c_void_p), ("q_sin", c_void_p), ("k_cos", c_void_p), ("k_sin", c_void_p),
        ("product", c_void_p), ("release", c_void_p),
        ("by_query", _Meetings), ("by_key", _Meetings), ("threads", c_int64),
    )  # fmt: skip


_FUNCTIONS = {
    "fledge_attend_tiles": (c_int, POINTER(_Call), *[c_void_p] * 6),
    "fledge_attend_tiles_backward": (c_int, POINTER(_Call), *[c_void_p] * 11),
}


class Tiles:
    """Whether attention is computed over tiles, in this process. `use_tiles` decides."""

    on = False

    @staticmethod
    def serve(device: torch.device | str, dtype: torch.dtype | None) -> bool:
        """Whether a plan is to be one of tiles; without a type, of whatever `DTYPES` are computed here."""
        return Tiles.on and str(device) == "cpu" and (dtype is None or computes(dtype))


def use_tiles(on: bool, dtype: torch.dtype | None = None) -> str:
    """Attention over tiles from now on, for plans that are made from now on, if ``dtype`` is computed here (None: any).
    -> why not, where it was to be."""
    why = missing(dtype) if on else ""
    Tiles.on = on and not why
    return why


@functools.cache
def missing(dtype: torch.dtype | None = None) -> str:
    """Why these loops are not to be had here, for ``dtype`` (None: any); empty where they are. Builds them."""
    return refusal(_error, DTYPES if dtype is None else (dtype,))


@functools.cache
def _library() -> ctypes.CDLL:
    return load_loops(Path(__file__).with_name("tiles.cpp"), _FUNCTIONS)


def _error() -> float:
    """Of a small attention and its gradients, in every type that it computes, against the formula: the worst."""
    layout = Layout.of([70, 9, 30], [-1, 0, -1])
    plan, see = TilePlan.of(layout), torch.from_numpy(layout.visible())
    generator, errors = torch.Generator().manual_seed(0), []
    for dtype in DTYPES:
        if not computes(dtype):
            continue
        make = lambda heads: torch.randn(layout.tokens, heads, 32, generator=generator, dtype=torch.float32)  # noqa: E731
        q, k, v = (make(heads).to(dtype).requires_grad_() for heads in (2, 1, 1))
        cos, sin = torch.ones(layout.tokens, 1, 32, dtype=dtype), torch.zeros(layout.tokens, 1, 32, dtype=dtype)
        given = (q, k, v)
        exact = [x.detach().float().requires_grad_() for x in given]
        with torch.enable_grad():
            scores = torch.einsum("ihd,jd->hij", exact[0], exact[1][:, 0]).masked_fill(~see, float("-inf"))
            wanted = torch.einsum("hij,jd->ihd", scores.softmax(-1), exact[2][:, 0])
            found = attend_tiles(q, k, v, Turns((cos, sin), (cos, sin)), plan)
            upstream = make(2)
            pairs = zip(
                (found, *slopes([found], [upstream.to(dtype)], given)),
                (wanted, *slopes([wanted], [upstream], exact)), strict=True,
            )  # fmt: skip
        errors += [float((a.detach().float() - b.detach()).norm() / b.detach().norm()) for a, b in pairs]
    return max(errors)


@dataclass(frozen=True)
class Turns:
    """Rotary tables (`Rotary.tables`), of the queries, with the scale of the scores, and of the keys."""

    q: tuple[Tensor, Tensor]  # each (N', 1, d)
    k: tuple[Tensor, Tensor]


def attend_tiles(q: Tensor, k: Tensor, v: Tensor, turns: Turns, plan: TilePlan) -> Tensor:
    """q (N', h, d), k and v (N', k, d), not rotated, N' >= N, d even, float32 or bf16 -> (N', h, d); rows beyond the
    plan's are 0. Gradients of q, k and v lie beside each other in one tensor: the decoder's split makes use of it."""
    if not computes(q.dtype) or q.shape[-1] % 2:
        raise ConfigError(f"attention over tiles does not compute {q.dtype} with heads of {q.shape[-1]} here; set "
                          "compile=off")  # fmt: skip
    given = (q, k, v, *turns.q, *turns.k)
    alike = all(x.is_contiguous() for x in given[3:])
    alike &= all(x.dtype == q.dtype and x.device.type == "cpu" and len(x) >= plan.tokens for x in given)
    if not alike or k.shape != v.shape or q.shape[1] % k.shape[1] or q.shape[2] != k.shape[2]:
        shown = ", ".join(f"{tuple(x.shape)} {x.dtype}" for x in given)
        raise ConfigError(f"attention over {plan.tokens} tokens: q, k, v and their tables do not match: {shown}")
    out: Tensor = _Attention.apply(q, k, v, turns, plan)
    return out


class _Attention(torch.autograd.Function):
    """Keeps what it was given, its output and a number for each query and head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, turns: Turns, plan: TilePlan) -> Tensor:
        q, k, v = _rows(q), _rows(k), _rows(v)
        (rows, heads, d), room = q.shape, _room(plan)
        out, lse = q.new_empty(rows, heads, d), q.new_empty(heads, room, dtype=torch.float32)
        packs = q.new_empty(2 * k.shape[1] * room * d)
        with named("attention", 2 * _flops(q, plan)):  # two products of each pair
            _library().fledge_attend_tiles(
                int(q.dtype == torch.bfloat16), byref(_call(q, k, v, turns, plan)),
                *[x.data_ptr() for x in (q, k, v, packs, out, lse)],
            )  # fmt: skip
        out[plan.tokens :] = 0
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.turns, ctx.plan = turns, plan
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out, lse = ctx.saved_tensors
        g, room, (rows, heads, d), key_heads = g.contiguous(), _room(ctx.plan), q.shape, k.shape[1]
        packs = q.new_empty((3 * key_heads + 4 * heads) * room * d)
        delta = torch.empty_like(lse)
        joined = q.new_empty(rows, heads + 2 * key_heads, d)
        joined[ctx.plan.tokens :] = 0
        d_q, d_k, d_v = joined.split([heads, key_heads, key_heads], 1)
        with named("attention_backward", 7 * _flops(q, ctx.plan)):
            _library().fledge_attend_tiles_backward(
                int(q.dtype == torch.bfloat16), byref(_call(q, k, v, ctx.turns, ctx.plan)),
                *[x.data_ptr() for x in (q, k, v, out, g, lse, packs, delta, d_q, d_k, d_v)],
            )  # fmt: skip
        return d_q, d_k, d_v, None, None


def _rows(x: Tensor) -> Tensor:
    """(N', heads, d) with heads beside each other; from token to token there may be gaps, of whole pairs."""
    return x if x.stride()[1:] == (x.shape[2], 1) and x.stride(0) % 2 == 0 else x.contiguous()


def _room(plan: TilePlan) -> int:
    return (len(plan.by_query.first) - 1) * TILE


def _flops(q: Tensor, plan: TilePlan) -> int:
    """Of one product of all pairs of tiles."""
    return 2 * TILE * TILE * len(plan.by_query.other) * q.shape[1] * q.shape[2]


def _call(q: Tensor, k: Tensor, v: Tensor, turns: Turns, plan: TilePlan) -> _Call:
    products = small_products()
    assert products is not None  # `attend_tiles` has asked
    tables = [
        _Meetings(*[x.data_ptr() for x in (m.first, m.other, m.row, m.bits)]) for m in (plan.by_query, plan.by_key)
    ]
    (_, heads, d), key_heads = q.shape, k.shape[1]
    return _Call(
        plan.tokens, heads, key_heads, d, q.stride(0), k.stride(0), v.stride(0), (heads + 2 * key_heads) * d,
        *[x.data_ptr() for x in (*turns.q, *turns.k)], products.of(q.dtype), products.release, *tables,
        torch.get_num_threads(),
    )  # fmt: skip

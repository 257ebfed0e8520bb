"""Attention over the packed layout: one function, one contract, three paths.

On CPUs with AVX-512, where the passes are compiled too, loops of our own do all of it (tiles.py). Elsewhere queries are
cut into blocks of equal size; a block is multiplied with the keys that any of its queries may see, and what a
single query may not see is masked. Blocks with about as many keys share one batched product. So segments of any
lengths, with parents of any depth, cost a handful of operations a layer, whatever their number, and no (N, N) mask is
made. On CPUs plain products are also 2-4x faster than torch's fused kernel at T <= 512 in bf16 (measured fwd+bwd on a
2-core AVX-512-bf16 machine); a long single segment goes to that kernel instead, which keeps no probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fledge.core.shapes import round_up
from fledge.model.layout import Layout
from fledge.model.rotary import Rotary, rotate
from fledge.model.tiles import TilePlan, Tiles, Turns, attend_tiles

BLOCK = 128  # queries a block: fastest of 64, 128, 256 for T = 128..512
KEY_STEP = 128  # key counts are rounded up to this, so that blocks meet in few products
LONG = 1024  # roots from this length on go to the fused kernel


@dataclass(frozen=True)
class BlockGroup:
    """B query blocks with the same number of key slots."""

    queries: Tensor  # (B*Q,) token indices; slots beyond the last token repeat token 0 and are dropped
    keys: Tensor  # (B*K,) token indices
    bias: Tensor  # (B, Q, K) 0 or -inf, float32; a padding query sees key slot 0 so that no row is empty
    rows: Tensor  # (R,) which of the B*Q slots are real
    tokens: Tensor  # (R,) the token of each real slot
    shape: tuple[int, int, int]  # B, Q, K


@dataclass(frozen=True)
class AttentionPlan:
    """What attention needs of a layout, as tensors, made once a micro-batch."""

    positions: Tensor  # (N',) N' >= N: rows beyond the layout's are filling; finite values come out of them
    groups: tuple[BlockGroup, ...]
    long: tuple[tuple[int, int], ...]  # start and end of roots that go to the fused kernel
    order: Tensor  # (N',) index into the concatenated results of groups and long roots, in token order
    tiles: TilePlan | None = None  # instead of groups, long and order


def make_plan(
    layout: Layout, block: int = BLOCK, long: int = LONG, device: torch.device | str = "cpu", rows: int = 0,
    dtype: torch.dtype | None = None,
) -> AttentionPlan:  # fmt: skip
    """Cut the tokens of a layout into query blocks and group them by their number of keys. On the host, in numpy.

    ``rows`` beyond the layout's tokens are filling: any tensor of that many rows may then be attended over. ``dtype``
    says what will be computed in, where that is not what training computes in.
    """
    filling = np.zeros(max(0, rows - layout.tokens), np.int64)
    positions = torch.from_numpy(np.concatenate([layout.positions, filling])).to(device)
    if Tiles.serve(device, dtype):
        return AttentionPlan(positions, (), (), torch.zeros(0, dtype=torch.int64), TilePlan.of(layout))
    has_child = np.zeros(layout.segments, bool)
    has_child[layout.parent[layout.parent >= 0]] = True
    is_long = (layout.parent < 0) & ~has_child & (layout.length >= long)
    blocks: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for queries in _query_runs(layout, is_long, block):
        keys, see = _keys_of(layout, queries)
        width = -(-len(keys) // KEY_STEP) * KEY_STEP
        blocks.setdefault(width, []).append((queries, keys, see))
    groups, produced = [], []
    for width, members in sorted(blocks.items()):
        size = block if len(members) > 1 else min(block, round_up(len(members[0][0]), device))
        group = _stack(members, size, width, device)
        groups.append(group)
        produced.append(group.tokens.cpu().numpy())
    spans = tuple((int(layout.start[s]), int(layout.start[s] + layout.length[s])) for s in np.flatnonzero(is_long))
    produced += [np.arange(a, b) for a, b in spans]
    order = np.argsort(np.concatenate(produced), kind="stable")
    order = np.concatenate([order, order[filling]])
    move = lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(device)  # noqa: E731
    return AttentionPlan(positions, tuple(groups), spans, move(order))


def _query_runs(layout: Layout, is_long: np.ndarray, block: int) -> list[np.ndarray]:
    """Token indices in blocks. A long segment is cut by itself; short neighbours share a block, unless they have
    different ancestors (their keys would add up)."""
    runs: list[np.ndarray] = []
    start = end = -1  # the open run of short segments with one parent
    parent = -2

    def close() -> None:
        nonlocal start
        if start >= 0:
            runs.append(np.arange(start, end))
        start = -1

    for s in range(layout.segments):
        a, n = int(layout.start[s]), int(layout.length[s])
        if is_long[s]:
            close()
        elif n >= block:
            close()
            runs += [np.arange(i, min(i + block, a + n)) for i in range(a, a + n, block)]
        elif start >= 0 and a + n - start <= block and (layout.parent[s] == parent):
            end = a + n
        else:
            close()
            start, end, parent = a, a + n, int(layout.parent[s])
    close()
    return runs


def _keys_of(layout: Layout, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys that the queries (a run of tokens) may see, and (Q, K) which of them each sees."""
    first, last = int(layout.segment_of[queries[0]]), int(layout.segment_of[queries[-1]])
    own = np.arange(int(layout.start[first]), int(queries[-1]) + 1)
    above = [np.arange(layout.start[p], layout.start[p] + layout.length[p]) for p in layout.ancestors(first)]
    keys = np.concatenate([*above, own])
    inherited = len(keys) - len(own)
    see = np.ones((len(queries), len(keys)), bool)
    see[:, inherited:] = own[None, :] <= queries[:, None]
    if first != last:
        see[:, inherited:] &= layout.segment_of[own][None, :] == layout.segment_of[queries][:, None]
    return keys, see


def _stack(
    members: list[tuple[np.ndarray, np.ndarray, np.ndarray]], size: int, width: int, device: torch.device | str
) -> BlockGroup:
    count = len(members)
    queries = np.zeros((count, size), np.int64)
    keys = np.zeros((count, width), np.int64)
    see = np.zeros((count, size, width), bool)
    real = np.zeros((count, size), bool)
    for b, (q, k, s) in enumerate(members):
        queries[b, : len(q)], keys[b, : len(k)], see[b, : len(q), : len(k)] = q, k, s
        real[b, : len(q)] = True
        see[b, len(q) :, 0] = True
    bias = np.where(see, np.float32(0), np.float32(-np.inf))
    rows = np.flatnonzero(real)
    move = lambda x: torch.from_numpy(np.ascontiguousarray(x)).to(device)  # noqa: E731
    return BlockGroup(
        move(queries.reshape(-1)), move(keys.reshape(-1)), move(bias), move(rows),
        move(queries.reshape(-1)[rows]), (count, size, width),
    )  # fmt: skip


class PackedAttention:
    """`Attend` over a packed row. Made once a micro-batch and used by every layer."""

    def __init__(self, plan: AttentionPlan, rotary: Rotary, dtype: torch.dtype) -> None:
        self.plan = plan
        self.cos, self.sin = rotary.tables(plan.positions, dtype)
        scale = rotary.head_dim**-0.5
        self.scaled = (self.cos * scale, self.sin * scale)
        self.bias = [group.bias.to(dtype)[:, None] for group in plan.groups]  # (B, 1, Q, K)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (N', q, d), k and v (N', k, d) -> (N', q, d)."""
        if self.plan.tiles:
            return attend_tiles(q, k, v, Turns(self.scaled, (self.cos, self.sin)), self.plan.tiles)
        # the queries' scale goes into their tables: one pass less over (N, q, d)
        scaled, k = rotate(q, *self.scaled), rotate(k, self.cos, self.sin)
        parts = [_blocks(scaled, k, v, g, bias) for g, bias in zip(self.plan.groups, self.bias, strict=True)]
        for a, b in self.plan.long:
            parts.append(_fused(scaled[a:b], k[a:b], v[a:b]))
        return torch.cat(parts).index_select(0, self.plan.order)


def _blocks(q: Tensor, k: Tensor, v: Tensor, group: BlockGroup, bias: Tensor) -> Tensor:
    """Queries already scaled -> (R, q, d) for the group's real query slots."""
    count, size, width = group.shape
    heads, d = q.shape[1:]
    kv = k.shape[1]
    repeat = heads // kv
    # (B, Q, kv, repeat, d) -> (B*kv, repeat*Q, d): query heads of one key head share its keys in one product
    queries = q.index_select(0, group.queries).view(count, size, kv, repeat, d).permute(0, 2, 3, 1, 4)
    queries = queries.reshape(count * kv, repeat * size, d)
    keys, values = (
        x.index_select(0, group.keys).view(count, width, kv, d).transpose(1, 2).reshape(count * kv, width, d)
        for x in (k, v)
    )
    scores = torch.bmm(queries, keys.transpose(1, 2)).view(count, kv * repeat, size, width).add_(bias)
    weights = scores.softmax(-1).view(count * kv, repeat * size, width)
    out = torch.bmm(weights, values).view(count, kv, repeat, size, d)
    return out.permute(0, 3, 1, 2, 4).reshape(count * size, heads, d).index_select(0, group.rows)


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One long causal segment, queries already scaled: (T, q, d), (T, k, d) -> (T, q, d)."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0, enable_gqa=q.shape[1] != k.shape[1])
    return out[0].transpose(0, 1)


def plain_attention(layout: Layout, rotary: Rotary, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition, with an (N, N) mask: what every other path is tested against."""
    positions = torch.from_numpy(layout.positions).to(q.device)
    cos, sin = rotary.tables(positions, q.dtype)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    repeat = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(repeat, 1) for x in (k, v))
    scores = torch.einsum("iqd,jqd->qij", q, k) * q.shape[-1] ** -0.5
    see = torch.from_numpy(layout.visible()).to(q.device)
    weights = scores.masked_fill(~see, float("-inf")).softmax(-1)
    return torch.einsum("qij,jqd->iqd", weights, v)

"""Keys and values of a cohort: requests that were admitted together and advance together.

A request's prompt is computed once; its samples share the prompt's keys. What a sample adds is its own part, whose
length is the same for all rows of a cohort, so that it needs no mask. Prompts differ in length: the shorter ones are
filled up, and a bias hides the filling. All memory is taken once, when the cohort is admitted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fledge.core.shapes import filled
from fledge.model.attention import PackedAttention, make_plan
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.layout import Layout
from fledge.model.rotary import Rotary, rotate


def cache_dtype(weight: Tensor) -> torch.dtype:
    """Float32 on a CPU, whatever the weights: a batch of small bf16 products costs torch 4-12 times as much there
    (64 rows, 31 keys, one core with AMX: 362 against 28 microseconds). Elsewhere as the weights."""
    return torch.float32 if weight.device.type == "cpu" else weight.dtype


class Cache:
    """P prompts, R rows with up to ``new`` own tokens each; L layers, k key heads of size d."""

    def __init__(
        self, config: DecoderConfig, lengths: list[int], prompt_of: list[int], new: int, dtype: torch.dtype,
        device: torch.device,
    ) -> None:  # fmt: skip
        layers, heads, d = config.num_hidden_layers, config.num_key_value_heads, config.head_dim
        self.width = -(-max(lengths) // 8) * 8
        take = lambda *shape: torch.empty(layers, *shape, dtype=dtype, device=device)  # noqa: E731
        # Filling must be finite: its weight is 0, and 0 x NaN of fresh memory is NaN.
        self.prompt_k = take(len(lengths), heads, self.width, d).zero_()
        self.prompt_v = take(len(lengths), heads, self.width, d).zero_()
        self.own_k = take(len(prompt_of), heads, new, d)
        self.own_v = take(len(prompt_of), heads, new, d)
        self.lengths = torch.tensor(lengths, device=device)
        self.used = 0  # own tokens of every row
        self.prompt_of = torch.tensor(prompt_of, device=device)
        self._arrange()

    @property
    def rows(self) -> int:
        return len(self.prompt_of)

    @property
    def size(self) -> int:
        """Tokens that it has memory for."""
        return self.width * len(self.lengths) + self.own_k.shape[3] * self.rows

    @property
    def positions(self) -> Tensor:
        """(R,) position of the token that is fed next."""
        return self.lengths[self.prompt_of] + self.used

    def _arrange(self) -> None:
        """Which slot of its prompt each row has. Prompts with fewer live rows than the fullest leave slots empty."""
        counts = torch.bincount(self.prompt_of, minlength=len(self.lengths))
        self.slots = int(counts.max())
        order = self.prompt_of.argsort(stable=True)
        first = counts.cumsum(0) - counts
        slot = torch.empty_like(order)
        slot[order] = torch.arange(self.rows, device=order.device) - first[self.prompt_of[order]]
        self.place = self.prompt_of * self.slots + slot  # (R,) into (P * slots)
        total = len(self.lengths) * self.slots
        self.direct = bool((self.place == torch.arange(self.rows, device=order.device)).all()) and total == self.rows
        hidden = torch.arange(self.width, device=order.device) >= self.lengths[:, None]
        bias = torch.zeros(hidden.shape, dtype=self.own_k.dtype, device=order.device).masked_fill(hidden, float("-inf"))
        self.bias = bias[:, None, None] if bool(hidden.any()) else None  # (P, 1, 1, width)

    def keep(self, rows: Tensor) -> Tensor:
        """Keep these rows (increasing) and drop the others, in place; prompts without rows go too.

        -> the kept rows in their new order: the last survivors move into the gaps, so that little is copied.
        """
        order = survivors(rows, self.rows)
        _move((self.own_k, self.own_v), order, self.used)
        self.own_k, self.own_v = self.own_k[:, : len(order)], self.own_v[:, : len(order)]
        prompt_of = self.prompt_of[order]
        prompts = survivors(torch.unique(prompt_of), len(self.lengths))
        _move((self.prompt_k, self.prompt_v), prompts, self.width)
        self.prompt_k, self.prompt_v = self.prompt_k[:, : len(prompts)], self.prompt_v[:, : len(prompts)]
        place = torch.empty_like(self.lengths)
        place[prompts] = torch.arange(len(prompts), device=place.device)
        self.prompt_of, self.lengths = place[prompt_of], self.lengths[prompts]
        self._arrange()
        return order


def survivors(keep: Tensor, size: int) -> Tensor:
    """Indices ``keep`` (increasing, of ``size``) in such an order that each stays, but the last ones fill the gaps."""
    count = len(keep)
    stays = torch.zeros(size, dtype=torch.bool, device=keep.device)
    stays[keep] = True
    order = torch.arange(count, device=keep.device)
    order[~stays[:count]] = keep[keep >= count]
    return order


def _move(tensors: tuple[Tensor, Tensor], order: Tensor, used: int) -> None:
    """Tensors (L, rows, k, length, d): place i takes row order[i]; only the first ``used`` of the length matter."""
    gaps = (order != torch.arange(len(order), device=order.device)).nonzero()[:, 0]
    if len(gaps):
        for x in tensors:
            x[:, gaps, :, :used] = x[:, order[gaps], :, :used]


class PromptAttention:
    """`Attend` over packed prompts that also writes their keys and values, rotated, into the cache."""

    def __init__(
        self, cache: Cache, rotary: Rotary, dtype: torch.dtype, lengths: list[int], first: int, rows: int
    ) -> None:
        """The prompts ``first``, ``first + 1``... of the cache, of these lengths, in a tensor of ``rows`` tokens."""
        layout = Layout.of(lengths)
        device = cache.prompt_k.device
        self.cache = cache
        self.attend = PackedAttention(make_plan(layout, device=device, rows=rows), rotary, dtype)
        self.prompts = torch.from_numpy(layout.segment_of + first).to(device)
        self.positions = torch.from_numpy(layout.positions).to(device)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rotated, dtype = rotate(k, self.attend.cos, self.attend.sin), self.cache.prompt_k.dtype
        real = len(self.prompts)  # the rest is filling
        self.cache.prompt_k[layer][self.prompts, :, self.positions] = rotated[:real].to(dtype)
        self.cache.prompt_v[layer][self.prompts, :, self.positions] = v[:real].to(dtype)
        return self.attend(layer, q, k, v)


class StepAttention:
    """`Attend` for one new token of each row of several cohorts, whose rows follow each other."""

    def __init__(self, caches: list[Cache], tables: tuple[Tensor, Tensor]) -> None:
        self.caches = caches
        at = torch.cat([cache.positions for cache in caches]) if len(caches) > 1 else caches[0].positions
        self.cos, self.sin = tables[0][at], tables[1][at]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = rotate(q, self.cos, self.sin), rotate(k, self.cos, self.sin)
        if len(self.caches) == 1:
            return self._cohort(self.caches[0], layer, q, k, v)
        parts, start = [], 0
        for cache in self.caches:
            rows = slice(start, start + cache.rows)
            parts.append(self._cohort(cache, layer, q[rows], k[rows], v[rows]))
            start += cache.rows
        return torch.cat(parts)

    @staticmethod
    def _cohort(cache: Cache, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (R, q, d), k and v (R, k, d), one token a row -> (R, q, d)"""
        rows, heads, d = q.shape
        kv, prompts, slots, t = k.shape[1], len(cache.lengths), cache.slots, cache.used + 1
        repeat = heads // kv
        own_k, own_v = cache.own_k[layer], cache.own_v[layer]
        own_k[:, :, cache.used] = k
        own_v[:, :, cache.used] = v
        own_k, own_v = own_k[:, :, :t].flatten(0, 1), own_v[:, :, :t].flatten(0, 1)
        q = q.to(own_k.dtype) * d**-0.5
        own = torch.bmm(q.reshape(rows * kv, repeat, d), own_k.transpose(1, 2)).view(rows, heads, t)
        # A prompt's rows are queries of one product with its keys.
        shared = _to_slots(cache, q.view(rows, kv, repeat, d), prompts, slots, kv, repeat)
        prefix = torch.bmm(shared, cache.prompt_k[layer].flatten(0, 1).transpose(1, 2))
        if cache.bias is not None:
            prefix = (prefix.view(prompts, kv, slots * repeat, -1) + cache.bias).view_as(prefix)
        prefix = _from_slots(cache, prefix, prompts, slots, kv, repeat).reshape(rows, heads, -1)
        scores = torch.cat([prefix, own], -1)
        weights = scores.softmax(-1)
        shared = _to_slots(cache, weights[..., : cache.width].reshape(rows, kv, repeat, -1), prompts, slots, kv, repeat)
        out = torch.bmm(shared, cache.prompt_v[layer].flatten(0, 1))
        out = _from_slots(cache, out, prompts, slots, kv, repeat).reshape(rows, heads, d)
        own = torch.bmm(weights[..., cache.width :].reshape(rows * kv, repeat, t), own_v)
        return (out + own.view(rows, heads, d)).to(v.dtype)


def _to_slots(cache: Cache, x: Tensor, prompts: int, slots: int, kv: int, repeat: int) -> Tensor:
    """(R, k, repeat, w) of rows -> (P*k, slots*repeat, w); empty slots are 0."""
    if not cache.direct:
        filled = x.new_zeros(prompts * slots, *x.shape[1:])
        filled[cache.place] = x
        x = filled
    x = x.view(prompts, slots, kv, repeat, -1).transpose(1, 2)
    return x.reshape(prompts * kv, slots * repeat, -1)


def _from_slots(cache: Cache, x: Tensor, prompts: int, slots: int, kv: int, repeat: int) -> Tensor:
    """The way back: (P*k, slots*repeat, w) -> (R, k, repeat, w)"""
    x = x.view(prompts, kv, slots, repeat, -1).transpose(1, 2)
    if cache.direct and slots == 1:
        return x.reshape(prompts, kv, repeat, -1)
    x = x.reshape(prompts * slots, kv, repeat, -1)
    return x if cache.direct else x[cache.place]


def prefill(decoder: Decoder, cache: Cache, rotary: Rotary, prompts: Sequence[Sequence[int]], chunk: int) -> Tensor:
    """Run the prompts, about ``chunk`` tokens at a time, into the cache. -> (P, h), hidden states of the last tokens"""
    last, first = [], 0
    while first < len(prompts):
        end, tokens = first + 1, len(prompts[first])
        while end < len(prompts) and tokens + len(prompts[end]) <= chunk:
            tokens += len(prompts[end])
            end += 1
        part = prompts[first:end]
        lengths = [len(p) for p in part]
        row = filled(np.concatenate([np.asarray(p, np.int64) for p in part]), cache.own_k.device)
        attend = PromptAttention(cache, rotary, decoder.output_weight.dtype, lengths, first, rows=len(row))
        hidden = decoder(torch.from_numpy(row).to(cache.own_k.device), attend)
        last.append(hidden[torch.from_numpy(np.cumsum(lengths) - 1).to(hidden.device)])
        first = end
    return torch.cat(last)

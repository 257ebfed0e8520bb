"""One decoding step: the forward of one new token a row, in as few operations as torch lets it be.

It computes what the decoder computes (model/decoder.py; tests compare them), without modules and autograd, on the
joined weights. What a step costs beyond its products is the number of operations: about 20 a layer here, 60 with the
modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from fledge.generate.cache import Cache
from fledge.generate.page_reading import PagedAttention
from fledge.generate.pages import PagedCache
from fledge.generate.weights import LayerWeights, compute_copy
from fledge.model.decoder import Decoder
from fledge.model.rotary import Rotary

FEW = 8  # rows up to which torch's float32 products are faster than its bf16 ones on a CPU,
SMALL = 1 << 21  # if a layer's largest matrix has no more elements

Caches = Sequence[Cache | PagedCache]  # all of one kind


class Attention(Protocol):
    """Of one new token for each row of some caches; writes its key and value into them."""

    @property
    def dtype(self) -> torch.dtype:
        """What the caches hold."""

    def __call__(self, layer: int, turned: Tensor, value: Tensor) -> Tensor:
        """turned (R, k, r + 1, d): for each key head its queries and the key, rotated; value (R, k, d) -> (R, q * d)"""


class Step:
    """``step(tokens (R,), caches) -> hidden states (R, h)``. The caches' rows follow each other; each gets a token."""

    def __init__(self, decoder: Decoder, rotary: Rotary, positions: int, rows: int) -> None:
        """For at most ``rows`` rows that stand at fewer than ``positions``."""
        self.config = decoder.config
        self.weights = compute_copy(decoder, self.dtype(decoder, rows))
        device = self.weights.norm.device
        # Angles in float32 whatever the weights: keys are rotated as they are cached, in float32 on a CPU
        self.cos, self.sin = rotary.tables(torch.arange(positions, device=device), torch.float32)
        self.eps = torch.tensor([decoder.config.rms_norm_eps], device=device)

    @staticmethod
    def dtype(decoder: Decoder, rows: int) -> torch.dtype:
        """Of the products: as the weights, but for a few rows and small matrices on a CPU. There a bf16 product costs
        torch 35-80 microseconds before it begins (all products of a step, 6.5M parameters, 2 cores with AMX, bf16
        against float32: 1.85 / 0.68 ms at 1 row, 1.23 / 1.31 at 8, 1.58 / 2.31 at 16, 2.5 / 4.4 at 64), as much as
        reading two million weights in float32 instead."""
        weight, config = decoder.output_weight, decoder.config
        small = 2 * config.hidden_size * config.intermediate_size <= SMALL
        return torch.float32 if weight.device.type == "cpu" and rows <= FEW and small else weight.dtype

    @staticmethod
    def cache_dtype(weight: Tensor) -> torch.dtype:
        """Float32 on a CPU, whatever the weights: a batch of small bf16 products costs torch 4-12 times as much there
        (64 rows, 31 keys, one core with AMX: 362 against 28 microseconds). Elsewhere as the weights."""
        return torch.float32 if weight.device.type == "cpu" else weight.dtype

    def __call__(self, tokens: Tensor, caches: Caches) -> Tensor:
        attention = self._attention(caches)
        at = torch.cat([cache.positions for cache in caches]) if len(caches) > 1 else caches[0].positions
        turn = self.cos[at][:, None], self.sin[at][:, None]
        x = F.embedding(tokens, self.weights.embedding)
        for index, layer in enumerate(self.weights.layers):
            x = self._layer(x, index, layer, turn, attention)
        for cache in caches:
            cache.used += 1
        return self._normal(x, self.weights.norm)

    def _attention(self, caches: Caches) -> Attention:
        paged = [cache for cache in caches if isinstance(cache, PagedCache)]
        if paged:
            return PagedAttention(paged, self.config.num_attention_heads)
        return CohortAttention([cache for cache in caches if isinstance(cache, Cache)])

    def logits(self, hidden: Tensor, usable: int) -> tuple[Tensor, Tensor | None]:
        """(R, h) -> float32 logits of the vocabulary's first ``usable`` rows (R, usable), and of the others if any."""
        head = self.weights.head
        hidden = hidden.to(head.dtype)
        rest = torch.mm(hidden, head[:, usable:]).float() if usable < head.shape[1] else None
        return torch.mm(hidden, head[:, :usable]).float(), rest

    def _layer(
        self, x: Tensor, index: int, layer: LayerWeights, turn: tuple[Tensor, Tensor], attention: Attention
    ) -> Tensor:
        y = self._normal(x, layer.first_norm)
        y = torch.mm(y, layer.joined) if layer.bias is None else torch.addmm(layer.bias, y, layer.joined)
        y = y.view(len(y), self.config.num_key_value_heads, -1, self.config.head_dim)
        x = torch.addmm(x, self._attend(y, turn, index, attention), layer.out)
        gate, up = torch.mm(self._normal(x, layer.second_norm), layer.gate_up).chunk(2, -1)
        return torch.addmm(x, F.silu(gate).mul_(up), layer.down)

    @staticmethod
    def _attend(y: Tensor, turn: tuple[Tensor, Tensor], layer: int, attention: Attention) -> Tensor:
        """y (R, k, r + 2, d): for each key head its queries, key and value, not rotated -> (R, q * d), in y's dtype.

        Rotates queries and keys, and writes keys and values into the caches.
        """
        wide = y.float()
        turned = wide[:, :, :-1]
        turned = torch.addcmul(turned * turn[0], turned.roll(turned.shape[-1] // 2, -1), turn[1])
        return attention(layer, turned.to(attention.dtype), wide[:, :, -1].to(attention.dtype)).to(y.dtype)

    def _normal(self, x: Tensor, weight: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self.eps, norm, norm, value=1 / x.shape[-1]).rsqrt_()
        return (x * scale).to(x.dtype).mul_(weight)


class CohortAttention:
    """Attention over the caches of cohorts, one after the other."""

    def __init__(self, caches: list[Cache]) -> None:
        self.caches = caches
        self.dtype = caches[0].own[0].dtype

    def __call__(self, layer: int, turned: Tensor, value: Tensor) -> Tensor:
        if len(self.caches) == 1:
            return _cohort(turned, value, layer, self.caches[0])
        parts, start = [], 0
        for cache in self.caches:
            rows = slice(start, start + cache.rows)
            parts.append(_cohort(turned[rows], value[rows], layer, cache))
            start = rows.stop
        return torch.cat(parts)


def _cohort(turned: Tensor, value: Tensor, layer: int, cache: Cache) -> Tensor:
    """turned (R, k, r + 1, d), value (R, k, d) -> (R, q * d)"""
    rows, heads, _, d = turned.shape
    by_head = turned.flatten(0, 1)  # (R*k, r + 1, d)
    own, at = cache.own[layer], cache.column
    own[:, 0, at] = by_head[:, -1]
    own[:, 1, at] = value.flatten(0, 1)
    queries, keys, values = by_head[:, :-1], own[:, 0, : at + 1].transpose(1, 2), own[:, 1, : at + 1]
    scale = d**-0.5
    if cache.joined:
        return torch.bmm(_scores(queries, keys, cache.bias, scale).softmax(-1), values).view(rows, -1)
    # A prompt's rows are queries of one product with its keys.
    prompt = cache.prompt[layer]
    shared = _to_slots(queries.unflatten(0, (rows, heads)), cache)
    prefix = _from_slots(_scores(shared, prompt[:, 0].transpose(1, 2), cache.bias, scale), cache)
    weights = torch.cat([prefix, _scores(queries, keys, None, scale).view(*prefix.shape[:-1], -1)], -1).softmax(-1)
    out = torch.bmm(weights.view(rows * heads, -1, weights.shape[-1])[..., cache.width :], values)
    shared = torch.bmm(_to_slots(weights[..., : cache.width].view(rows, heads, -1, cache.width), cache), prompt[:, 1])
    shared = _from_slots(shared, cache)
    return out.view(shared.shape).add_(shared).view(rows, -1)


def _scores(queries: Tensor, keys: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """(B, r, d), (B, d, T) -> (B, r, T): scaled, and hidden by the bias, within the product."""
    if bias is None:
        return torch.baddbmm(queries.new_empty(1, 1, 1), queries, keys, beta=0, alpha=scale)
    return torch.baddbmm(bias[..., : keys.shape[2]], queries, keys, alpha=scale)


def _to_slots(x: Tensor, cache: Cache) -> Tensor:
    """(R, k, r, w) of rows -> (P*k, slots*r, w); empty slots are 0."""
    if not cache.direct:
        filled = x.new_zeros(len(cache.lengths) * cache.slots, *x.shape[1:])
        filled[cache.place] = x
        x = filled
    x = x.unflatten(0, (-1, cache.slots)).transpose(1, 2)
    return x.reshape(-1, cache.slots * x.shape[3], x.shape[4])


def _from_slots(x: Tensor, cache: Cache) -> Tensor:
    """The way back: (P*k, slots*r, w) -> (R, k, r, w), or where rows fill the slots a view: (P, slots, k, r, w)"""
    x = x.view(len(cache.lengths), cache.heads, cache.slots, -1, x.shape[2]).transpose(1, 2)
    return x if cache.direct else x[cache.prompt_of, cache.slot]

"""The output head in chunks: no (M, V) logits in float32, ever (promise 5).

`token_logp` recomputes each chunk's logits in the backward pass; `weighted_nll` is for objectives that are linear in
the log-probability with weights known beforehand: it makes the gradient while the logits are there, so the head costs
three products instead of four.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fledge.core.shapes import round_up
from fledge.model import passes

CHUNK_ELEMENTS = 1 << 22  # logits held at once: 16 MiB in float32
CHUNK_ROWS = 256  # but never fewer rows, or the sums of the weight's gradient cost more than the products


def _chunk(rows: int, vocabulary: int) -> int:
    return max(1, min(rows, max(CHUNK_ROWS, CHUNK_ELEMENTS // vocabulary))) if rows else 1


def _fill(*columns: Tensor) -> list[Tensor]:
    """Rows of zeros behind each, up to a rounded number (core/shapes.py); what they make is cut off again."""
    extra = round_up(len(columns[0]), columns[0].device) - len(columns[0])
    return [F.pad(x, (0, 0) * (x.ndim - 1) + (0, extra)) for x in columns] if extra else list(columns)


class _TokenLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, sharpness: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        rows, step = len(targets), _chunk(len(targets), len(weight))
        logp = hidden.new_empty(rows, dtype=torch.float32)
        entropy, lse = torch.zeros_like(logp), torch.empty_like(logp)
        for a in range(0, rows, step):
            part = slice(a, a + step)
            logits = F.linear(hidden[part], weight)
            lse[part] = passes.normalisers(logits, sharpness)
            logp[part] = logits.gather(1, targets[part, None])[:, 0].float() * sharpness - lse[part]
            if with_entropy:
                entropy[part] = passes.entropies(logits, sharpness, lse[part])
        ctx.save_for_backward(hidden, weight, targets, lse, logp, entropy)
        ctx.sharpness = sharpness
        if not with_entropy:
            ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_logp: Tensor, g_entropy: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden, weight, targets, lse, logp, entropy = ctx.saved_tensors
        rows, step = len(targets), _chunk(len(targets), len(weight))
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        # d logp_t / d z = onehot(t) - p ;  d H / d z = -p (log p + H) ;  z = sharpness * logits
        on_shares, on_entropy = -g_logp * ctx.sharpness, -g_entropy * ctx.sharpness
        with_entropy = bool(g_entropy.any())
        for a in range(0, rows, step):
            part = slice(a, a + step)
            logits = F.linear(hidden[part], weight)
            args = (logits, ctx.sharpness, lse[part], on_shares[part])
            if with_entropy:
                g = passes.shares_and_entropy(*args, entropy[part], on_entropy[part])
            else:
                g = passes.shares(*args)
            # the target's own entry from its log-probability: near 1, a share in bf16 leaves nothing of 1 - share
            chance = logp[part].exp()
            own = g_logp[part] * (1 - chance) - g_entropy[part] * chance * (logp[part] + entropy[part])
            _set_at(g, targets[part], own * ctx.sharpness)
            torch.mm(g, weight, out=d_hidden[part])
            d_weight += g.T @ hidden[part]
        return d_hidden, d_weight.to(weight.dtype), None, None, None


class _WeightedNll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, token_weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows, step = len(targets), _chunk(len(targets), len(weight))
        logp = hidden.new_empty(rows, dtype=torch.float32)
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        for a in range(0, rows, step):
            part = slice(a, a + step)
            logits = F.linear(hidden[part], weight)
            lse = passes.normalisers(logits, 1.0)
            logp[part] = logits.gather(1, targets[part, None])[:, 0].float() - lse
            g = passes.shares(logits, 1.0, lse, token_weight[part])
            _set_at(g, targets[part], (logp[part].exp() - 1) * token_weight[part])
            torch.mm(g, weight, out=d_hidden[part])
            d_weight += g.T @ hidden[part]
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.dtype = weight.dtype
        ctx.mark_non_differentiable(logp)
        return -(logp * token_weight).sum(), logp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * g.to(d_hidden.dtype), (d_weight * g).to(ctx.dtype), None, None


def _set_at(rows: Tensor, columns: Tensor, values: Tensor) -> None:
    """rows[i, columns[i]] = values[i]"""
    rows[torch.arange(len(rows), device=rows.device), columns] = values.to(rows.dtype)


def token_logp(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, with_entropy: bool = True
) -> tuple[Tensor, Tensor]:
    """hidden (M, h), weight (V, h), targets (M,) -> log-probability and entropy of softmax(logits / temperature),
    both (M,) float32, both differentiable. Without entropy, which is a pass over all logits, zeros are in its place."""
    rows = len(targets)
    hidden, targets = _fill(hidden, targets)
    logp, entropy = _TokenLogp.apply(hidden, weight, targets, 1.0 / temperature, with_entropy)
    return logp[:rows], entropy[:rows]


def weighted_nll(hidden: Tensor, weight: Tensor, targets: Tensor, token_weight: Tensor) -> tuple[Tensor, Tensor]:
    """-> sum of -logp * token_weight, a scalar with its gradient already made, and logp (M,) without gradient.

    ``token_weight`` (M,) float32 must not depend on parameters. In inference (no gradient asked for) use `token_logp`.
    """
    rows = len(targets)
    hidden, targets, token_weight = _fill(hidden, targets, token_weight)
    total, logp = _WeightedNll.apply(hidden, weight, targets, token_weight)
    return total, logp[:rows]

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

CHUNK_ELEMENTS = 1 << 22  # logits held at once: 16 MiB in float32


def _chunk(rows: int, vocabulary: int) -> int:
    return max(1, min(rows, CHUNK_ELEMENTS // vocabulary)) if rows else 1


def _fill(*columns: Tensor) -> list[Tensor]:
    """Rows of zeros behind each, up to a rounded number (core/shapes.py); what they make is cut off again."""
    extra = round_up(len(columns[0]), columns[0].device) - len(columns[0])
    return [F.pad(x, (0, 0) * (x.ndim - 1) + (0, extra)) for x in columns] if extra else list(columns)


class _TokenLogp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        rows, step = len(targets), _chunk(len(targets), len(weight))
        logp = hidden.new_empty(rows, dtype=torch.float32)
        entropy, lse = torch.empty_like(logp), torch.empty_like(logp)
        for a in range(0, rows, step):
            part = slice(a, a + step)
            logits = F.linear(hidden[part], weight).float().div_(temperature)
            norm = logits.logsumexp(-1)
            lse[part] = norm
            logp[part] = logits.gather(1, targets[part, None])[:, 0] - norm
            log_shares = logits.sub_(norm[:, None])
            entropy[part] = -(log_shares.exp() * log_shares).sum(-1)
        ctx.save_for_backward(hidden, weight, targets, lse, entropy)
        ctx.temperature = temperature
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_logp: Tensor, g_entropy: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, targets, lse, entropy = ctx.saved_tensors
        rows, step = len(targets), _chunk(len(targets), len(weight))
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        with_entropy = bool(g_entropy.any())
        for a in range(0, rows, step):
            part = slice(a, a + step)
            log_shares = F.linear(hidden[part], weight).float().div_(ctx.temperature).sub_(lse[part, None])
            shares = log_shares.exp()
            # d logp_t / d z = onehot(t) - p ;  d H / d z = -p (log p + H)
            g = shares * -g_logp[part, None]
            g[torch.arange(len(g), device=g.device), targets[part]] += g_logp[part]
            if with_entropy:
                g -= shares * (log_shares + entropy[part, None]) * g_entropy[part, None]
            g = g.div_(ctx.temperature).to(hidden.dtype)
            torch.mm(g, weight, out=d_hidden[part])
            d_weight += g.T @ hidden[part]
        return d_hidden, d_weight.to(weight.dtype), None, None


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
            # In place and by hand: a logsumexp and a softmax beside it would pass over the logits twice as often
            logits = F.linear(hidden[part], weight).float()
            index = torch.arange(len(logits), device=logits.device)
            top = logits.amax(-1, keepdim=True)
            shifted = logits.sub_(top)
            chosen = shifted[index, targets[part]]
            shares = shifted.exp_()
            total = shares.sum(-1)
            logp[part] = chosen - total.log()
            g = shares.mul_((token_weight[part] / total)[:, None])
            g[index, targets[part]] -= token_weight[part]
            g = g.to(hidden.dtype)
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


def token_logp(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """hidden (M, h), weight (V, h), targets (M,) -> log-probability and entropy of softmax(logits / temperature),
    both (M,) float32, both differentiable."""
    rows = len(targets)
    hidden, targets = _fill(hidden, targets)
    logp, entropy = _TokenLogp.apply(hidden, weight, targets, temperature)
    return logp[:rows], entropy[:rows]


def weighted_nll(hidden: Tensor, weight: Tensor, targets: Tensor, token_weight: Tensor) -> tuple[Tensor, Tensor]:
    """-> sum of -logp * token_weight, a scalar with its gradient already made, and logp (M,) without gradient.

    ``token_weight`` (M,) float32 must not depend on parameters. In inference (no gradient asked for) use `token_logp`.
    """
    rows = len(targets)
    hidden, targets, token_weight = _fill(hidden, targets, token_weight)
    total, logp = _WeightedNll.apply(hidden, weight, targets, token_weight)
    return total, logp[:rows]

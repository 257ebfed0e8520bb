"""The output head in parts: no (M, V) logits, ever (promise 5).

A weight that is frozen, as under adapters, gets no gradient: neither the product nor the (V, h) it would be stored in.

`token_logp` goes through the vocabulary in blocks, each for all rows: what a block's products need lies in the cache,
and its rows of the weight's gradient are finished at once. Logits are made again in the backward pass, which makes
four products. `weighted_nll` is for objectives that are linear in the log-probability with weights known beforehand:
with a small vocabulary it goes through the rows in chunks and makes the gradient while the logits, or their
exponentials, are there, which are three products. Both have two ways, of one contract: head_loops.py on CPUs that have
what its loops need, and the torch below.

Measured on 2 cores with AMX, bf16, forward and backward, medians: 2,048 rows of 256 with 151,936 entries: chunks of 256
rows 1.6 seconds, blocks 1.35, loops 1.1; 4,096 rows with 8,192 entries: chunks 186 ms, blocks 160, loops 112.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from fledge.core.shapes import round_up
from fledge.model import head_loops, passes
from fledge.model.head_loops import HeadLoops

BLOCK = 2048  # of the vocabulary, for all rows
MOST_LOGITS = 1 << 24  # of a block: with more than 8,192 rows, blocks are smaller
CHUNK_LOGITS = 1 << 22  # of a chunk of rows, for the whole vocabulary
SMALL = 1 << 15  # a vocabulary that may be gone through in chunks of rows


def token_logp(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, with_entropy: bool = True
) -> tuple[Tensor, Tensor]:
    """hidden (M, h), weight (V, h), targets (M,) -> log-probability and entropy of softmax(logits / temperature),
    both (M,) float32, both differentiable. Without entropy, which is a pass over all logits, zeros are in its place."""
    rows = len(targets)
    if not HeadLoops.serve(hidden, weight):
        hidden, targets = _fill(hidden, targets)
    logp, entropy = _TokenLogp.apply(hidden, weight, targets, 1.0 / temperature, with_entropy)
    return logp[:rows], entropy[:rows]


def weighted_nll(hidden: Tensor, weight: Tensor, targets: Tensor, token_weight: Tensor) -> tuple[Tensor, Tensor]:
    """-> sum of -logp * token_weight, a scalar, and logp (M,) without gradient.

    ``token_weight`` (M,) float32 must not depend on parameters. In inference (no gradient asked for) use `token_logp`.
    """
    if len(weight) > SMALL:
        logp, _ = token_logp(hidden, weight, targets, with_entropy=False)
        return -(logp * token_weight).sum(), logp.detach()
    rows = len(targets)
    if not HeadLoops.serve(hidden, weight):
        hidden, targets, token_weight = _fill(hidden, targets, token_weight)
    total, logp = _WeightedNll.apply(hidden, weight, targets, token_weight)
    return total, logp[:rows]


def _fill(*columns: Tensor) -> list[Tensor]:
    """Rows of zeros behind each, up to a rounded number (core/shapes.py); what they make is cut off again."""
    extra = round_up(len(columns[0]), columns[0].device) - len(columns[0])
    return [F.pad(x, (0, 0) * (x.ndim - 1) + (0, extra)) for x in columns] if extra else list(columns)


class _TokenLogp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, sharpness: float, with_entropy: bool
    ) -> tuple[Tensor, Tensor]:
        ctx.sharpness, ctx.loops = sharpness, HeadLoops.serve(hidden, weight)
        way = head_loops.forward if ctx.loops else _forward
        lse, logp, entropy = way(hidden, weight, targets, sharpness, with_entropy)
        ctx.save_for_backward(hidden, weight, targets, lse, logp, entropy)
        if not with_entropy:
            ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_logp: Tensor, g_entropy: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        hidden, weight, targets, lse, logp, entropy = ctx.saved_tensors
        # d logp_t / d z = onehot(t) - p ;  d H / d z = -p (log p + H) ;  z = sharpness * logits
        with_entropy = bool(g_entropy.any())
        on_entropy = -g_entropy * ctx.sharpness if with_entropy else None
        # the target's own entry from its log-probability: near 1, a share in bf16 leaves nothing of 1 - share
        chance = logp.exp()
        own = (g_logp * (1 - chance) - g_entropy * chance * (logp + entropy)) * ctx.sharpness
        way = head_loops.backward if ctx.loops else _backward
        d_hidden, d_weight = way(
            hidden, weight, targets, ctx.sharpness, lse, -g_logp * ctx.sharpness, own,
            entropy if with_entropy else None, on_entropy, ctx.needs_input_grad[1],
        )  # fmt: skip
        return d_hidden, d_weight, None, None, None


def _forward(
    hidden: Tensor, weight: Tensor, targets: Tensor, sharpness: float, with_entropy: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """-> lse of sharpness * logits, log-probability, entropy (zeros where not asked for), each (M,) float32."""
    own = hidden.new_zeros(len(targets), dtype=torch.float32)
    normalisers, entropies = [], []
    for block, rows in _blocks(targets, len(weight)):
        logits = F.linear(hidden, weight[block])
        normalisers.append(passes.normalisers(logits, sharpness))
        if with_entropy:
            entropies.append(passes.entropies(logits, sharpness, normalisers[-1]))
        own[rows] = logits[rows, targets[rows] - block.start].float() * sharpness
    parts = torch.stack(normalisers)  # (blocks, M)
    lse = parts.logsumexp(0)
    if not with_entropy:
        return lse, own - lse, torch.zeros_like(lse)
    shares = parts - lse  # their logarithms; the entropy is that of the shares, and the mean of what is within them
    return lse, own - lse, (shares.exp() * (torch.stack(entropies) - shares)).sum(0)


def _backward(
    hidden: Tensor, weight: Tensor, targets: Tensor, sharpness: float, lse: Tensor, on_share: Tensor, own: Tensor,
    entropy: Tensor | None, on_entropy: Tensor | None, with_weight: bool = True,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The gradient of the logits is softmax * (on_share + on_entropy * (ln softmax + entropy)), and ``own`` at the
    target; all (M,) float32. -> gradients of hidden (M, h) and weight (V, h), in their type; the weight's only
    ``with_weight``."""
    d_hidden = torch.zeros_like(hidden, dtype=torch.float32)
    d_weight = torch.empty_like(weight) if with_weight else None
    for block, rows in _blocks(targets, len(weight)):
        logits = F.linear(hidden, weight[block])
        if entropy is not None and on_entropy is not None:
            g = passes.shares_and_entropy(logits, sharpness, lse, on_share, entropy, on_entropy)
        else:
            g = passes.shares(logits, sharpness, lse, on_share)
        g[rows, targets[rows] - block.start] = own[rows].to(g.dtype)
        if d_weight is not None:
            torch.mm(g.T, hidden, out=d_weight[block])
        d_hidden += g @ weight[block]
    return d_hidden.to(hidden.dtype), d_weight


def _blocks(targets: Tensor, vocabulary: int) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of the vocabulary, each with the rows whose target lies in it."""
    width = BLOCK
    while len(targets) * width > MOST_LOGITS and width > 128:
        width //= 4
    starts = range(0, vocabulary, width)
    ordered, rows = targets.sort(stable=True)
    begins = torch.searchsorted(ordered, torch.tensor([*starts, vocabulary], device=targets.device)).tolist()
    if begins[0] > 0 or begins[-1] < len(targets):
        raise IndexError(f"targets from {int(ordered[0])} to {int(ordered[-1])} with {vocabulary} entries")
    for start, begin, end in zip(starts, begins, begins[1:], strict=False):
        yield slice(start, min(start + width, vocabulary)), rows[begin:end]


class _WeightedNll(torch.autograd.Function):
    """Makes its gradients in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, token_weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        way = head_loops.nll if HeadLoops.serve(hidden, weight) else _nll
        logp, d_hidden, d_weight = way(hidden, weight, targets, token_weight, ctx.needs_input_grad[1])
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.dtype = weight.dtype
        ctx.mark_non_differentiable(logp)
        return -(logp * token_weight).sum(), logp

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        d_hidden, d_weight = ctx.saved_tensors
        on_weight = (d_weight * g).to(ctx.dtype) if d_weight is not None else None
        return d_hidden * g.to(d_hidden.dtype), on_weight, None, None


def _nll(
    hidden: Tensor, weight: Tensor, targets: Tensor, token_weight: Tensor, with_weight: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Chunks of rows -> log-probabilities (M,), and of -sum of them * token_weight the gradients of hidden (M, h), in
    its type, and, ``with_weight``, of weight (V, h) in float32."""
    rows, step = len(targets), max(1, CHUNK_LOGITS // len(weight))
    logp, d_hidden = hidden.new_empty(rows, dtype=torch.float32), torch.empty_like(hidden)
    d_weight = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if with_weight else None
    for a in range(0, rows, step):
        part = slice(a, a + step)
        logits = F.linear(hidden[part], weight)
        lse = passes.normalisers(logits, 1.0)
        logp[part] = logits.gather(1, targets[part, None])[:, 0].float() - lse
        g = passes.shares(logits, 1.0, lse, token_weight[part])
        own = (logp[part].exp() - 1) * token_weight[part]
        g.scatter_(1, targets[part, None], own[:, None].to(g.dtype))
        torch.mm(g, weight, out=d_hidden[part])
        if d_weight is not None:
            d_weight += g.T @ hidden[part]
    return logp, d_hidden, d_weight

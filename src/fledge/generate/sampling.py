"""From logits to tokens: penalty, temperature, top-k, top-p, one uniform number a row (SPEC L.2).

Tokens are drawn by inverting the cumulative distribution with one uniform number for each row and step, from a stream
of the row's own. So a row's samples do not depend on what else is in the batch, and nothing of the size of the
vocabulary is drawn (torch.multinomial draws one number per logit, which is most of a decoding step on a CPU).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from fledge.core.config import Config

NEGATIVE = float("-inf")
_BLOCK = 128  # of a long row, looked at as one first
_FEW = 4  # rows that are not worth being looked at in blocks
_TRY = 256  # candidates looked at before the whole vocabulary is sorted for top-p


class Sampling(Config):
    """How one request is sampled. The default is the model's own distribution, which is what RL needs (SPEC L.2)."""

    temperature: float = Field(1.0, ge=0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="smallest set of tokens with this much probability; 1 is off")
    top_k: int = Field(0, ge=0, description="most probable tokens kept; 0 is off")
    repetition_penalty: float = Field(1.0, gt=0, description="for tokens of prompt and output; 1 is off")
    max_new_tokens: int = Field(512, gt=0)
    seed: int = Field(0, ge=0, description="sample i of a request draws from its own stream (seed, i)")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


def uniforms(seed: int, index: int, count: int) -> np.ndarray:
    """(count,) float32 in [0, 1): the stream of sample ``index`` of a request with ``seed``."""
    bits = np.random.Philox(np.random.SeedSequence((seed, index)))
    return np.random.Generator(bits).random(count, dtype=np.float32)


@dataclass
class Rules:
    """The sampling of R rows as tensors, and which of the rules any row uses at all."""

    temperature: Tensor  # (R, 1); 1 where greedy
    greedy: Tensor  # (R,) bool
    top_k: Tensor  # (R,) int64; 0 is off
    top_p: Tensor  # (R,)
    penalty: Tensor  # (R, 1)

    def __post_init__(self) -> None:
        self.any_temperature = bool((self.temperature != 1).any())
        self.any_greedy, self.all_greedy = bool(self.greedy.any()), bool(self.greedy.all())
        self.filtered = ((self.top_k > 0) | (self.top_p < 1)) & ~self.greedy
        self.any_filtered, self.all_filtered = bool(self.filtered.any()), bool(self.filtered.all())
        self.any_penalty = bool((self.penalty != 1).any())

    @classmethod
    def of(cls, rows: list[Sampling], device: torch.device | str = "cpu") -> Rules:
        make = lambda values, dtype: torch.tensor(values, dtype=dtype, device=device)  # noqa: E731
        return cls(
            make([[s.temperature or 1.0] for s in rows], torch.float32),
            make([s.greedy for s in rows], torch.bool),
            make([s.top_k for s in rows], torch.int64),
            make([s.top_p for s in rows], torch.float32),
            make([[s.repetition_penalty] for s in rows], torch.float32),
        )

    def select(self, rows: Tensor) -> Rules:
        return Rules(*(x[rows] for x in (self.temperature, self.greedy, self.top_k, self.top_p, self.penalty)))


class Drawn(NamedTuple):
    """What one step gives for R rows."""

    tokens: Tensor  # (R,) int64
    logp: Tensor  # (R,) under the distribution that was sampled: after penalty, temperature, top-k, top-p; 0 if greedy
    model_logp: Tensor  # (R,) log-softmax of logits / temperature (temperature 1 if greedy): what a trainer computes


def draw(
    logits: Tensor, rules: Rules, uniform: Tensor, seen: Tensor | None = None, rest: Tensor | None = None
) -> Drawn:
    """logits (R, V) float32, uniform (R,) in [0, 1), seen (R, >= V) bool where any row has a penalty -> a token a row.

    ``rest`` (R, W) are the logits of vocabulary rows that have no token: they are never drawn, but count in
    ``model_logp``, because they count in training.
    """
    scaled = logits / rules.temperature if rules.any_temperature else logits
    choice = scaled
    if rules.any_penalty:
        assert seen is not None, "a repetition penalty needs the tokens seen so far"
        choice = penalise(logits, seen[:, : logits.shape[1]], rules.penalty) / rules.temperature
    # One pass over the vocabulary serves the draw and both log-probabilities. A share of what was drawn is never so
    # small that its logarithm suffers.
    shares = choice.softmax(-1)
    if rules.all_greedy:
        tokens = best(choice)
        logp = torch.zeros_like(uniform)
    else:
        tokens, logp = _sample(choice, shares, rules, uniform)
        if rules.any_greedy:
            tokens = torch.where(rules.greedy, best(choice), tokens)
            logp = logp.masked_fill(rules.greedy, 0.0)
    return Drawn(tokens, logp, _model_logp(scaled, None if rules.any_penalty else shares, tokens, rules, rest))


def _model_logp(scaled: Tensor, shares: Tensor | None, tokens: Tensor, rules: Rules, rest: Tensor | None) -> Tensor:
    """(R,) log-softmax of logits / temperature at the tokens; ``shares`` is their softmax where it is at hand."""
    if shares is not None:
        logp = _at(shares, tokens).log_()
    else:
        logp = _at(scaled, tokens) - scaled.logsumexp(-1)
    if rest is None:
        return logp
    beyond = (rest / rules.temperature).logsumexp(-1)
    return logp - F.softplus(beyond - _at(scaled, tokens) + logp)  # log(Z / (Z + Z beyond))


def _sample(choice: Tensor, shares: Tensor, rules: Rules, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """-> tokens (R,) and their log-probabilities under what they were drawn from (R,)"""
    if rules.any_filtered:
        tokens, logp = _draw_filtered(choice, rules, uniform)
        if rules.all_filtered:
            return tokens, logp
    plain = invert(shares, uniform)
    plain_logp = _at(shares, plain).log_()
    if not rules.any_filtered:
        return plain, plain_logp
    return torch.where(rules.filtered, tokens, plain), torch.where(rules.filtered, logp, plain_logp)


def _at(x: Tensor, tokens: Tensor) -> Tensor:
    return x.gather(1, tokens[:, None])[:, 0]


def penalise(logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """Divide positive logits of seen tokens by the penalty, multiply negative ones (CTRL, 1909.05858, section 4.1)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def _draw_filtered(logits: Tensor, rules: Rules, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """From the candidates, most probable first, that top-k and top-p leave. -> tokens (R,), log-probabilities (R,)"""
    probabilities, tokens = candidates(logits, rules.top_k, rules.top_p, rules.filtered)
    place = invert(probabilities, uniform)[:, None]
    kept = probabilities.sum(-1, keepdim=True)
    return tokens.gather(1, place)[:, 0], (probabilities.gather(1, place) / kept).log()[:, 0]


def candidates(logits: Tensor, top_k: Tensor, top_p: Tensor, wanted: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Probabilities (R, m), 0 where filtered out, and tokens (R, m), most probable first.

    Top-k first; top-p then keeps the smallest set whose share of what top-k left is at least p, always one token.
    The probabilities are relative: they need not add up to 1. Rows that are not ``wanted`` may hold anything.
    """
    size = logits.shape[1]
    limit = torch.where(top_k > 0, top_k, size).clamp(max=size)
    ask = limit if wanted is None else torch.where(wanted, limit, 1)
    widest = int(ask.max())
    asked_k = top_k if wanted is None else torch.where(wanted, top_k, 0)
    width = min(widest, max(_TRY, int(asked_k.max())))  # so that only rows without top-k can need more
    while True:
        values, tokens = logits.topk(width, -1) if width < size else logits.sort(-1, descending=True)
        beyond = torch.arange(width, device=logits.device) >= limit[:, None]
        top = values[:, :1]
        probabilities = (values - top).exp().masked_fill(beyond, 0.0)
        running = probabilities.cumsum(-1)
        # Where top-k is off the share is of the whole vocabulary, else of the k that are left.
        whole = (logits - top).exp().sum(-1) if widest > width else running[:, -1]
        need = top_p * torch.where(limit <= width, running[:, -1], whole)
        if widest <= width:
            break
        short = (limit > width) & ((running[:, -1] < need) | (top_p >= 1))
        if not bool((short if wanted is None else short & wanted).any()):
            break
        width = widest
    drop = (running - probabilities >= need[:, None]) & (top_p < 1)[:, None]
    drop[:, 0] = False
    return probabilities.masked_fill(drop, 0.0), tokens


def invert(shares: Tensor, uniform: Tensor) -> Tensor:
    """First place whose cumulative share exceeds the uniform number; never a place of share 0. -> (R,)

    The shares (R, V) need not add up to 1. A long row is searched by the sums of its blocks, then within one: torch
    adds up along a row one element after the other (64 x 8,192: 306 microseconds, sums of blocks 41).
    """
    if shares.shape[1] < 4 * _BLOCK:
        running = shares.cumsum(-1)
        return _first_beyond(running, uniform * running[:, -1])
    sums = _of_blocks(shares, lambda x: x.sum(-1))
    running = sums.cumsum(-1)
    target = uniform * running[:, -1]
    block = _first_beyond(running, target)
    left = target - (_at(running, block) - _at(sums, block))
    return block * _BLOCK + _first_beyond(_block(shares, block, 0.0).cumsum(-1), left)


def best(x: Tensor) -> Tensor:
    """First place of the largest of each row (R, V) -> (R,), as torch's argmax, which is slow at long rows (64 x 8,192:
    661 microseconds, by blocks 199; a single row: 25, by blocks 61)."""
    if x.shape[1] < 4 * _BLOCK or len(x) <= _FEW:
        return x.max(-1).indices
    block = _of_blocks(x, lambda part: part.amax(-1)).argmax(-1)
    return block * _BLOCK + _block(x, block, NEGATIVE).argmax(-1)


def _of_blocks(x: Tensor, reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """(R, V) -> (R, V / block, rounded up): each block reduced, the last may be shorter."""
    whole = x.shape[1] // _BLOCK
    parts = reduce(x[:, : whole * _BLOCK].unflatten(1, (whole, _BLOCK)))
    if whole * _BLOCK == x.shape[1]:
        return parts
    return torch.cat([parts, reduce(x[:, None, whole * _BLOCK :])], 1)


def _block(x: Tensor, block: Tensor, fill: float) -> Tensor:
    """The block of each row (R, block size), filled up beyond the row's end."""
    places = block[:, None] * _BLOCK + torch.arange(_BLOCK, device=x.device)
    found = x.gather(1, places.clamp(max=x.shape[1] - 1))
    return found if x.shape[1] % _BLOCK == 0 else found.masked_fill(places >= x.shape[1], fill)


def _first_beyond(running: Tensor, target: Tensor) -> Tensor:
    """First place of each increasing row (R, n) that exceeds its target (R,), which rounding may have put beyond the
    last: then the last place that adds anything."""
    total = running[:, -1]
    target = torch.minimum(target.clamp(min=0), torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(running, target[:, None], right=True)[:, 0]

"""Dropout whose mask is a function of the token and the place in the model, not of a generator's state.

Every entry's decision is a hash of seed, token, site and channel, where a token is known by the number of its example
in the run and its offset in it. So the mask is the same however the batch is cut, packed or shared out among ranks,
when a block is run again in the backward pass, and after a new start.

It is put on the embeddings and on what attention and the feed-forward add to the residual stream. (Qwen1's report says
"dropout .1" and no more; its released code has places for it on embeddings and on the probabilities of attention.
Those are left alone here: attention is computed in loops that never hold them.)
"""

from __future__ import annotations

import torch
from torch import Tensor

# Odd constants of splitmix64 (Steele, Lea & Flood 2014) and of a 32-bit mixer (C. Wellons, "lowbias32")
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_LOW_1, _LOW_2 = 0x7FEB352D, 0x846CA68B


class Dropout:
    """``dropout(tokens)`` -> the masks of one micro-batch, to be handed to the decoder's forward."""

    def __init__(self, rate: float, seed: int) -> None:
        if not 0 < rate < 1:
            raise ValueError(f"a rate of dropout lies between 0 and 1, not {rate}")
        self.rate, self.seed = rate, seed

    def __call__(self, tokens: Tensor) -> Masks:
        """tokens (N,) int64: who each token is in the run (`PackedBatch.identity`)."""
        return Masks(self.rate, _mix(tokens + _signed(_GOLDEN * (self.seed + 1))))


class Masks:
    """``masks(x, site)``: x (N, h) with some entries 0 and the others scaled to the same mean."""

    def __init__(self, rate: float, tokens: Tensor) -> None:
        self.rate, self.tokens = rate, tokens
        self._channels: dict[int, Tensor] = {}

    def __call__(self, x: Tensor, site: int) -> Tensor:
        return (x * (1 / (1 - self.rate))).masked_fill(self.dropped(site, x.shape[-1]), 0.0)

    def dropped(self, site: int, width: int) -> Tensor:
        """(N, width) bool."""
        if width not in self._channels:
            count = torch.arange(1, width + 1, device=self.tokens.device)
            self._channels[width] = _mix(count * _signed(_GOLDEN)).to(torch.int32)
        rows = _mix(self.tokens + _signed(_GOLDEN * (site + 1))).to(torch.int32)
        mixed = rows[:, None] ^ self._channels[width]
        mixed *= _signed(_LOW_1, 32)
        mixed ^= mixed >> 15
        mixed *= _signed(_LOW_2, 32)
        return mixed < round(self.rate * 2**32) - 2**31


def _mix(x: Tensor) -> Tensor:
    """int64 -> int64, every bit of which depends on all of x's: splitmix64's last steps."""
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * _signed(_MIX_1)
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * _signed(_MIX_2)
    return x ^ (x >> 31 & (1 << 33) - 1)


def _signed(value: int, bits: int = 64) -> int:
    """The integer of ``bits`` bits that torch writes with a sign."""
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value

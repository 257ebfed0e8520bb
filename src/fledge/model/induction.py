"""A start with induction heads in place.

Copying from the context is done by two layers together (Olsson et al. 2022, "In-context learning and induction
heads"): a head of an earlier layer notes at each token which token came before it; a head of a later layer looks for
the place whose note equals the current token, and copies what stands there. Small models need long to find this: until
both halves are there, neither pays. So they are put there at the start, and trained like all other weights. That a
structured start replaces training is Trockman & Kolter's (2023, "Mimetic initialization of self-attention layers");
this construction, and its numbers, are ours.

- Layer 0, first head of the first key group: its scores come from biases alone. A constant key and the same key turned
  back by one position score sum_i a^2 cos(theta_i (distance - 1)) / sqrt(d), which is largest at distance 1. Its values
  are a projection P of the token, written back through another, N ("note"), orthogonal to P.
- Layer 1, first head of the first key group: queries read P of the token, keys read N, on slow rotary pairs only (fast
  ones would scramble a match at a distance); values are a third projection C, written back as it was read, which with
  tied embeddings raises the copied token's logit.
"""

from __future__ import annotations

from typing import cast

import torch

from fledge.core.errors import ConfigError
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Block, Decoder

# Chosen: of a few values each, the lowest loss after 60 steps of 4,096 tokens of the quickstart's corpus, at 256 x 4
# (3.30 without, 2.96 with; MATCH 2.5: 3.27, COPY 0.3: 3.06, the second half in layers 1 and 2: 3.18).
BIAS = 5.0  # a of the previous-token head
NOTE = 0.03  # of the order of an embedding's size, so that the note does not drown the token
MATCH = 1.0
COPY = 0.1
SLOW = 0.02  # rotary pairs below this angle a token take part in the match


def check(config: DecoderConfig) -> None:
    """Refuses shapes in which the two heads have no place."""
    missing = []
    if config.num_hidden_layers < 2:
        missing.append("two layers")
    if config.hidden_size < 3 * config.head_dim:
        missing.append("hidden_size of three heads")
    if not config.attention_bias:
        missing.append("biases of queries and keys (Qwen2's architecture)")
    if missing:
        raise ConfigError(f"model.start=induction needs {' and '.join(missing)}; use model.start=normal")


@torch.no_grad()
def plant(decoder: Decoder, seed: int) -> None:
    """Write the two heads into fresh weights, in place. The same weights from the same seed."""
    config = decoder.config
    check(config)
    d, h = config.head_dim, config.hidden_size
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(h, h, generator=generator, dtype=torch.float64))[0].float()
    token, note, copied = basis[:, :d].T, basis[:, d : 2 * d].T, basis[:, 2 * d : 3 * d].T  # each (d, h), orthonormal
    angles = config.rope_theta ** (-torch.arange(0, d, 2) / d)

    first = _Head(decoder, 0)
    first.query.zero_(), first.key.zero_()
    first.key_bias.copy_(torch.cat([torch.full((d // 2,), BIAS), torch.zeros(d // 2)]))
    first.query_bias.copy_(BIAS * torch.cat([angles.cos(), -angles.sin()]))
    first.value.copy_(token)
    first.output.copy_(NOTE * note.T)

    second = _Head(decoder, 1)
    slow = (angles < SLOW).nonzero()[:, 0]
    slow = torch.cat([slow, slow + d // 2])
    second.query.zero_(), second.key.zero_()
    second.query[slow] = MATCH * token[: len(slow)]
    second.key[slow] = MATCH * note[: len(slow)]
    second.value.copy_(copied)
    second.output.copy_(COPY * copied.T)


class _Head:
    """Views of the first query head and the first key head of an attention layer."""

    def __init__(self, decoder: Decoder, layer: int) -> None:
        attention = cast(Block, decoder.model.layers[layer]).self_attn
        d = attention.head_dim
        self.query, self.key, self.value = (
            layer.weight[:d] for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        )  # each (d, h)
        self.query_bias, self.key_bias = attention.q_proj.bias[:d], attention.k_proj.bias[:d]  # (d,)
        self.output = attention.o_proj.weight[:, :d]  # (h, d)

"""The weights as decoding wants them: a copy made once for each call of the engine, from the decoder's parameters as
they are then (so a trainer may pass the model that it trains), and gone with it.

At one token a row a step is made of many small operations, and most of its time is their number: so q, k and v of a
layer are one product, and so are gate and up.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Block, Decoder


class LayerWeights(NamedTuple):
    """``joined`` is laid out by key head: the r query heads that share it, the key head itself, its values. So the
    queries of a product with the cache, and the key and value to write into it, are views of what comes out.
    """

    first_norm: Tensor  # (h,)
    joined: Tensor  # (h, k * (r + 2) * d), transposed
    bias: Tensor | None  # (k * (r + 2) * d,)
    out: Tensor  # (q * d, h), transposed
    second_norm: Tensor  # (h,)
    gate_up: Tensor  # (h, 2 * i), transposed
    down: Tensor  # (i, h), transposed


class Weights(NamedTuple):
    embedding: Tensor  # (V, h)
    layers: tuple[LayerWeights, ...]
    norm: Tensor  # (h,)
    head: Tensor  # (h, V), transposed


def compute_copy(decoder: Decoder, dtype: torch.dtype) -> Weights:
    """The joined weights of a decoder in this type; what needs neither joining nor a cast is the decoder's own."""
    with torch.no_grad():
        layers = tuple(_layer(block, decoder.config, dtype) for block in decoder.model.layers)  # type: ignore[arg-type]
        embedding, norm = decoder.model.embed_tokens.weight.to(dtype), decoder.model.norm.weight.to(dtype)
        head = embedding if decoder.config.tie_word_embeddings else decoder.output_weight.to(dtype)
        return Weights(embedding, layers, norm, head.t())


def _layer(block: Block, config: DecoderConfig, dtype: torch.dtype) -> LayerWeights:
    attention, mlp = block.self_attn, block.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    joined = _by_key_head([p.weight for p in projections], config)
    bias = _by_key_head([p.bias for p in projections], config).to(dtype) if config.attention_bias else None
    matrices = joined, attention.o_proj.weight, _joined(mlp.gate_proj, mlp.up_proj), mlp.down_proj.weight
    joined, out, gate_up, down = (x.to(dtype).t() for x in matrices)
    norms = block.input_layernorm.weight.to(dtype), block.post_attention_layernorm.weight.to(dtype)
    return LayerWeights(norms[0], joined, bias, out, norms[1], gate_up, down)


def _joined(*layers: nn.Linear) -> Tensor:
    return torch.cat([layer.weight for layer in layers])


def _by_key_head(parts: list[Tensor], config: DecoderConfig) -> Tensor:
    """Rows of q, k and v, (heads * d, ...) each -> (k * (r + 2) * d, ...)"""
    kv, d = config.num_key_value_heads, config.head_dim
    q, k, v = (part.view(kv, -1, d, *part.shape[1:]) for part in parts)
    return torch.cat([q, k, v], 1).flatten(0, 2)

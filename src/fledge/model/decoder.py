"""The decoder, read from top to bottom. Parameters bear Hugging Face's names (SPEC A.4).

Shapes: N tokens of the packed row, h hidden, q and k query and key heads, d head size, i intermediate, V vocabulary.
Nothing here knows segments: attention is handed in, and everything else sees (N, h).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from fledge.model import passes
from fledge.model.config import DecoderConfig


class Attend(Protocol):
    """Attention over whatever layout or cache it was made for. It applies the rotary positions itself."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (N, q, d), k and v (N, k, d), not rotated -> (N, q, d)."""
        ...


class Drop(Protocol):
    """Dropout of the tokens of one row (dropout.py); ``site`` is the place in the model."""

    def __call__(self, x: Tensor, site: int) -> Tensor:
        """(N, h) -> (N, h)"""
        ...


class Head(Protocol):
    """What is made of the hidden states, within the forward."""

    def __call__(self, hidden: Tensor, weight: Tensor | None, score: Tensor | None = None) -> Tensor:
        """hidden (N, h); weight (V, h) of the head over the vocabulary, score (1, h) of a scalar head (scalar.py),
        None where there is none."""
        ...


MANY = 512  # tokens from which on projections of one input are joined


class _RmsNorm(torch.autograd.Function):
    """Keeps its input and 1/rms: the normalised rows are made again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        out, scale = passes.rms_norm(x, weight, eps)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None]:
        d_x, rows = passes.rms_norm_backward(g, *ctx.saved_tensors)
        return d_x, rows.sum(0, dtype=g.dtype), None


class _Gate(torch.autograd.Function):
    """silu(gate) * up of both beside each other, (N, 2i) -> (N, i). Keeps nothing but its input."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        ctx.save_for_backward(both)
        return passes.gate(both)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return passes.gate_backward(g, *ctx.saved_tensors)


class _Tied(torch.autograd.Function):
    """tokens (N,), weight (V, h) -> its rows (N, h), and the weight for the head. The rows' gradients are added to
    what the head made: where the vocabulary is large, one more (V, h) of zeros and a sum are most of this work. Whoever
    is handed that weight must give back a gradient that nothing else holds (head.py does)."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(tokens)
        return F.embedding(tokens, weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_rows: Tensor, g_weight: Tensor) -> tuple[None, Tensor]:
        (tokens,) = ctx.saved_tensors
        ids, place = tokens.unique(return_inverse=True)
        sums = torch.ops.aten.embedding_dense_backward(g_rows.float(), place, len(ids), -1, False)
        g_weight[ids] = (g_weight[ids] + sums).to(g_weight.dtype)
        return None, g_weight


class RMSNorm(nn.Module):
    """(N, h) -> (N, h): normalised in float32, cast back, then scaled; the order matters for bf16 parity."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _RmsNorm.apply(x, self.weight, self.eps)
        return out


def together(x: Tensor, *layers: nn.Linear) -> Tensor:
    """Several linear layers of one input x (N, h), their results beside each other: (N, sum of out).

    Joining the weights costs a copy of them, which pays when there are many tokens: one product instead of two or
    three in each direction, and no sums of the input's gradients.
    """
    if len(x) < MANY or any(type(layer) is not nn.Linear for layer in layers):  # an adapter adds to its own layer
        return torch.cat([layer(x) for layer in layers], -1)
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers]) if layers[0].bias is not None else None
    return F.linear(x, weight, bias)


class _Split(torch.autograd.Function):
    """Queries, keys and values beside each other, (N, q + 2k, d) -> views of the three. Gradients that lie beside each
    other too, as attention over tiles makes them, are not copied together: they are so already."""

    @staticmethod
    def forward(ctx: Any, joined: Tensor, key_heads: int) -> tuple[Tensor, ...]:
        return joined.split([joined.shape[1] - 2 * key_heads, key_heads, key_heads], 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *parts: Tensor) -> tuple[Tensor, None]:
        whole, heads, starts = parts[0]._base, [part.shape[1] for part in parts], [p.storage_offset() for p in parts]
        if (
            whole is not None
            and all(part._base is whole for part in parts)
            and whole.is_contiguous()
            and whole.shape == (len(parts[0]), sum(heads), parts[0].shape[2])
            and all(part.stride() == whole.stride() for part in parts)
            and starts == [sum(heads[:i]) * whole.shape[2] for i in range(3)]
        ):
            return whole, None
        return torch.cat(parts, 1), None


class SelfAttention(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        h, d = config.hidden_size, config.head_dim
        self.heads, self.key_heads, self.head_dim = config.num_attention_heads, config.num_key_value_heads, d
        self.q_proj = nn.Linear(h, self.heads * d, bias=config.attention_bias)
        self.k_proj = nn.Linear(h, self.key_heads * d, bias=config.attention_bias)
        self.v_proj = nn.Linear(h, self.key_heads * d, bias=config.attention_bias)
        self.o_proj = nn.Linear(self.heads * d, h, bias=False)

    def forward(self, x: Tensor, layer: int, attend: Attend) -> Tensor:
        joined = together(x, self.q_proj, self.k_proj, self.v_proj).view(len(x), -1, self.head_dim)
        q, k, v = _Split.apply(joined, self.key_heads)
        out: Tensor = self.o_proj(attend(layer, q, k, v).flatten(1))
        return out


class FeedForward(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        h, i = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(h, i, bias=False)
        self.up_proj = nn.Linear(h, i, bias=False)
        self.down_proj = nn.Linear(i, h, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(_Gate.apply(together(x, self.gate_proj, self.up_proj)))
        return out


class Block(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = FeedForward(config)

    def forward(self, x: Tensor, layer: int, attend: Attend, drop: Drop | None = None) -> Tensor:
        seen = self.self_attn(self.input_layernorm(x), layer, attend)
        x = x + (seen if drop is None else drop(seen, 2 * layer + 1))
        thought = self.mlp(self.post_attention_layernorm(x))
        return x + (thought if drop is None else drop(thought, 2 * layer + 2))


class Trunk(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        # given its weight, it does not draw one: on the meta device that would import torch's compiler, for a second
        shape = config.vocab_size, config.hidden_size
        self.embed_tokens = nn.Embedding(shape[0], shape[1], _weight=torch.empty(shape))
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.recompute = False  # keep only what goes into a block, and run it again in the backward pass

    def forward(self, x: Tensor, attend: Attend, drop: Drop | None = None) -> Tensor:
        x = x if drop is None else drop(x, 0)
        for index, block in enumerate(self.layers):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, index, attend, drop, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, index, attend, drop)
        out: Tensor = self.norm(x)
        return out


class Decoder(nn.Module):
    """``decoder(tokens (N,), attend) -> hidden (N, h)``.

    The head is applied elsewhere, in parts (promise 5). Whoever needs it within the forward (a sharded module has
    its whole weights only there) hands in a `Head`, whose result is then returned.
    ``folder``: where the weights were read from, None for a model that was made or changed here.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.folder: Path | None = None
        self.model = Trunk(config)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def forward(self, tokens: Tensor, attend: Attend, head: Head | None = None, drop: Drop | None = None) -> Tensor:
        if head is None:
            hidden: Tensor = self.model(self.model.embed_tokens(tokens), attend, drop)
            return hidden
        rows, weight = self.embed(tokens)
        return head(self.model(rows, attend, drop), weight)

    def embed(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (N,) -> their rows (N, h), and the weight (V, h) for the head."""
        embedding = self.model.embed_tokens
        if self.config.tie_word_embeddings:
            rows, weight = _Tied.apply(tokens, embedding.weight)
            return rows, weight
        return embedding(tokens), self.output_weight

    def twin(self) -> Self:
        """Another of this shape, its weights still to be set."""
        return type(self)(self.config)

    @property
    def output_weight(self) -> Tensor:
        """(V, h)"""
        return self.model.embed_tokens.weight if self.config.tie_word_embeddings else self.lm_head.weight

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Normal with ``initializer_range``; what is written into the residual stream is smaller by 1/sqrt(2 layers)
        (Qwen1's code, SPEC A.2). The same weights from the same seed, whatever was drawn before."""
        generator = torch.Generator().manual_seed(seed)
        std = self.config.initializer_range
        for name, parameter in self.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            elif name.endswith("bias"):
                parameter.zero_()
            else:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                scale = std / math.sqrt(2 * self.config.num_hidden_layers) if residual else std
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)

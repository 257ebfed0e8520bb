"""Small decoders whose attention matters, and layouts of many shapes."""

from __future__ import annotations

import numpy as np
import torch

from fledge.model.attention import PackedAttention, make_plan
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.layout import Layout
from fledge.model.rotary import Rotary


def config(architecture: str = "Qwen2ForCausalLM", **changes: object) -> DecoderConfig:
    values: dict[str, object] = {
        "architecture": architecture, "vocab_size": 131, "hidden_size": 48, "intermediate_size": 80,
        "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
        "max_position_embeddings": 256,
    }  # fmt: skip
    return DecoderConfig.model_validate(values | changes)


def decoder(shape: DecoderConfig, seed: int = 0) -> Decoder:
    """Weights of the size that keeps activations near 1, so that attention, biases and norms all show in the logits."""
    made = Decoder(shape)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise * parameter.shape[1] ** -0.5)
    return made


def attend(layout: Layout, shape: DecoderConfig, dtype: torch.dtype = torch.float32, **plan: int) -> PackedAttention:
    return PackedAttention(make_plan(layout, **plan), Rotary(shape.head_dim, shape.rope_theta), dtype)


def logits(model: Decoder, tokens: torch.Tensor, layout: Layout) -> torch.Tensor:
    return model(tokens, attend(layout, model.config)) @ model.output_weight.T


def random_layout(seed: int, segments: int = 12, longest: int = 60) -> Layout:
    """Documents, prompts with children, and grandchildren, in any order."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, longest, segments)
    parents = [-1 if s == 0 or generator.random() < 0.4 else int(generator.integers(0, s)) for s in range(segments)]
    return Layout.of(lengths.tolist(), parents)


LAYOUTS = {
    "one document": Layout.of([70]),
    "one token": Layout.of([1]),
    "documents": Layout.of([5, 1, 130, 17, 300, 2, 2, 64]),
    "a pair": Layout.of([20, 11, 7], [-1, 0, 0]),
    "a group": Layout.of([50, 9, 150, 1, 33], [-1, 0, 0, 0, 0]),
    "pairs and documents": Layout.of([20, 11, 7, 40, 9, 3, 8], [-1, 0, 0, -1, -1, 4, 4]),
    "children apart from their parent": Layout.of([20, 30, 5, 6, 7], [-1, -1, 0, 1, 0]),
    "a tree": Layout.of([20, 10, 5, 4, 9, 140, 3], [-1, 0, 1, 1, 0, 4, 5]),
    "a child longer than a block": Layout.of([150, 260, 3], [-1, 0, 0]),
    **{f"random {seed}": random_layout(seed) for seed in range(4)},
}

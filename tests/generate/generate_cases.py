"""Small decoders that do not degenerate, prompts, a small tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

from fledge.generate.engine import Completion, Engine, Request
from fledge.generate.sampling import Sampling
from fledge.model.attention import PackedAttention, make_plan
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.hf import save_decoder
from fledge.model.layout import Layout
from fledge.model.rotary import Rotary
from fledge.tokenizer.bpe import train
from fledge.tokenizer.tokenizer import Tokenizer

TEXTS = ["A duck swims, a goose flies; 一只鸭子在游泳，一只鹅在飞。", "Who are you? 你好，我是小雀。 🦆 1 + 2 = 3"] * 20


def shape(vocab_size: int = 131, architecture: str = "Qwen2ForCausalLM", context: int = 256) -> DecoderConfig:
    return DecoderConfig.model_validate(
        {
            "architecture": architecture, "vocab_size": vocab_size, "hidden_size": 48, "intermediate_size": 80,
            "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8,
            "max_position_embeddings": context,
        }
    )  # fmt: skip


def decoder(config: DecoderConfig, seed: int = 0) -> Decoder:
    """Activations near 1 everywhere, so that greedy text wanders instead of repeating one token."""
    made = Decoder(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise * (1.3 / parameter.shape[1] ** 0.5))
    return made


def prompts(count: int, longest: int = 60, vocabulary: int = 131, seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest, (count,), generator=generator).tolist()
    return [torch.randint(3, vocabulary, (n,), generator=generator).tolist() for n in lengths]


def one(engine: Engine, request: Request) -> Completion:
    return engine.generate([request])[0][0]


def packed_logits(model: Decoder, tokens: list[int]) -> torch.Tensor:
    """What the trainer's forward gives for one row of tokens. (N, V)"""
    attend = PackedAttention(
        make_plan(Layout.of([len(tokens)])), Rotary(model.config.head_dim, model.config.rope_theta), torch.float32
    )
    with torch.no_grad():
        return model(torch.tensor(tokens), attend) @ model.output_weight.T


def tokenizer() -> Tokenizer:
    return train(TEXTS, 384)


def chat_folder(folder: Path, generation: dict[str, object]) -> Decoder:
    """A complete folder whose model says random things."""
    words = tokenizer()
    model = decoder(shape(words.vocab_size))
    save_decoder(model, folder, generation)
    words.save(folder)
    return model


GREEDY = Sampling(temperature=0, max_new_tokens=64)

# Greedy and sampled, filtered and not, prompts of one to three samples, some of which leave early.
KINDS = [
    GREEDY,
    Sampling(max_new_tokens=24, seed=5),
    Sampling(max_new_tokens=25, seed=6, temperature=0.7, top_p=0.8),
    Sampling(max_new_tokens=30, seed=7, top_k=5, repetition_penalty=1.1),
    Sampling(max_new_tokens=1, seed=8),
]


def mixed(count: int) -> list[Request]:
    return [Request(p, n=1 + i % 3, sampling=KINDS[i % 5], stop_ids=(1, 2)) for i, p in enumerate(prompts(count))]

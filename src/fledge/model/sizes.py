"""The dial: named sizes, from tests to 72B, and training settings that go with a size.

Published shapes are SPEC A.1 (Qwen2, Table 1), A.2 (Qwen1, Table 1) and A.3 (CT-LLM's script). The laptop sizes keep
Qwen2's proportions: heads of 64, grouped queries, SwiGLU of 8/3 hidden, tied embeddings.
"""

from __future__ import annotations

from typing import Any

from fledge.core.errors import ConfigError
from fledge.model.config import DecoderConfig

# hidden, layers, query heads, key heads, head size, intermediate
_SHAPES: dict[str, tuple[int, int, int, int, int, int]] = {
    "nano": (64, 2, 4, 2, 16, 176),  # tests: seconds (SPEC M.3)
    "fledgling": (256, 4, 4, 2, 64, 688),  # the quickstart: 2.9M without embedding
    "30m": (512, 9, 8, 2, 64, 1376),
    "0.5b": (896, 24, 14, 2, 64, 4864),
    "1.5b": (1536, 28, 12, 2, 128, 8960),
    "7b": (3584, 28, 28, 4, 128, 18944),
    "72b": (8192, 80, 64, 8, 128, 29568),
    "qwen1-1.8b": (2048, 24, 16, 16, 128, 5504),
    "qwen1-7b": (4096, 32, 32, 32, 128, 11008),
    "qwen1-14b": (5120, 40, 40, 40, 128, 13696),
    "ct-llm-2b": (2048, 32, 16, 16, 128, 5504),
}

# Embedding rows of the released weights.
_VOCABULARY = {
    "0.5b": 151_936, "1.5b": 151_936, "7b": 152_064, "72b": 152_064,
    "qwen1-1.8b": 151_936, "qwen1-7b": 151_936, "qwen1-14b": 152_064, "ct-llm-2b": 125_696,
}  # fmt: skip

_REST: dict[str, dict[str, Any]] = {
    "nano": {"max_position_embeddings": 512},
    "fledgling": {"max_position_embeddings": 1024},
    "30m": {"max_position_embeddings": 2048},
    # Qwen2: pretrained at 4,096 with theta 1e4, then 32,768 with 1e6 (SPEC D.1); the released shape is the latter.
    "0.5b": {"max_position_embeddings": 32_768, "rope_theta": 1e6},
    "1.5b": {"max_position_embeddings": 32_768, "rope_theta": 1e6},
    "7b": {"max_position_embeddings": 32_768, "rope_theta": 1e6, "tie_word_embeddings": False},
    "72b": {"max_position_embeddings": 32_768, "rope_theta": 1e6, "tie_word_embeddings": False},
    # Qwen1: every head its own keys, theta 1e4, untied, context 2,048 (SPEC A.2).
    "qwen1-1.8b": {"max_position_embeddings": 2048, "tie_word_embeddings": False},
    "qwen1-7b": {"max_position_embeddings": 2048, "tie_word_embeddings": False},
    "qwen1-14b": {"max_position_embeddings": 2048, "tie_word_embeddings": False},
    # CT-LLM: no biases, eps 1e-5, tied and 4,096 as paper and card say (its script: untied, 8,192; SPEC A.3).
    "ct-llm-2b": {"architecture": "LlamaForCausalLM", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5},
}

NAMES = tuple(_SHAPES)
DEFAULT = "fledgling"


def size(name: str, vocab_size: int | None = None) -> DecoderConfig:
    """The shape called ``name``. Laptop sizes need the tokenizer's ``vocab_size``; published ones have their own."""
    _check(name)
    rows = vocab_size if vocab_size is not None else _VOCABULARY.get(name)
    if rows is None:
        raise ConfigError(f"size {name!r} has no vocabulary of its own: give vocab_size, from the tokenizer")
    hidden, layers, heads, keys, head, intermediate = _SHAPES[name]
    return DecoderConfig(
        vocab_size=rows,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=keys,
        head_dim=head,
        intermediate_size=intermediate,
        **_REST[name],
    )


def released_rows(name: str) -> int:
    """Embedding rows of the released weights; 0 for a size that has none."""
    _check(name)
    return _VOCABULARY.get(name, 0)


def recommended(name: str) -> dict[str, Any]:
    """Pretraining settings for a size: ``name`` of the optimizer, ``lr`` (peak), ``min_lr_ratio``, ``batch_tokens``,
    ``warmup`` (steps, or below 1 a share of them), ``betas``, ``eps``, ``weight_decay``, ``clip``, ``context``, and
    ``start`` of the weights.

    Starting points, not optima: sweep the learning rate at a small size and fit (SPEC F.5).
    """
    _check(name)
    if name in _PUBLISHED:
        return _COMMON | _PUBLISHED[name]
    if name not in _LAPTOP:
        raise ConfigError(f"size {name!r}: no recommended settings")
    return _COMMON | {"name": "muon"} | _LAPTOP[name]


# Adam's betas and epsilon, cosine to a tenth: Qwen1, Table 1 and text (SPEC A.2). Weight decay, clipping: the Qwen-7B
# memo (same place), and CT-LLM's script (SPEC A.3).
_COMMON: dict[str, Any] = {
    "name": "adamw", "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1, "clip": 1.0, "min_lr_ratio": 0.1,
    "start": "normal",
}  # fmt: skip

# Qwen1, Table 1 (SPEC A.2); M.2 takes it for Qwen2, which published none.
_QWEN = {"lr": 3e-4, "batch_tokens": 4_000_000, "warmup": 2000}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "0.5b": _QWEN | {"context": 4096},
    "1.5b": _QWEN | {"context": 4096},
    "7b": _QWEN | {"context": 4096},
    # Chosen: Qwen2 published nothing, and 3e-4 is for "up to 7B" (M.2). 1.5e-4 is what larger dense models printed.
    "72b": _QWEN | {"lr": 1.5e-4, "context": 4096},
    "qwen1-1.8b": _QWEN | {"context": 2048},
    "qwen1-7b": _QWEN | {"context": 2048},
    "qwen1-14b": _QWEN | {"context": 2048},
    # Cosine 2e-4 -> 2e-5, warm-up 2,000; the batch is implied by iterations x context = corpus: 512 x 4,096 (SPEC A.3).
    "ct-llm-2b": {"lr": 2e-4, "batch_tokens": 2_097_152, "warmup": 2000, "context": 4096},
}

# For Muon. Chosen; no source prints sizes this small. `fledgling` is measured on the quickstart's corpus: held-out loss
# after 246,000 tokens at rate 6e-3 is 2.46 nats with steps of 4,096 tokens, 2.12 with 2,048 and 1.92 with 1,024, which
# take twice as long altogether; over 1.7 million tokens 5e-3 ends at 0.388 bits per byte and 1e-2 at 0.404. AdamW 3e-3
# was far behind at 330,000 tokens (2.41 bits per byte against 1.57). Its weights begin with copying in place, which
# two million tokens are too few to find (docs/quickstart.md).
_LAPTOP: dict[str, dict[str, Any]] = {
    "nano": {"lr": 6e-3, "batch_tokens": 2_048, "warmup": 0.03, "context": 128},
    "fledgling": {"lr": 5e-3, "batch_tokens": 2_048, "warmup": 0.03, "context": 512, "start": "induction"},
    "30m": {"lr": 3e-3, "batch_tokens": 16_384, "warmup": 0.03, "context": 1024},
}


def _check(name: str) -> None:
    if name not in _SHAPES:
        import difflib

        near = difflib.get_close_matches(name.lower(), NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown size {name!r}{hint} (known: {', '.join(NAMES)})")

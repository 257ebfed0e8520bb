"""The small model whose losses and gradients are held beside TRL's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.model.hf import save_decoder
from fledge.tokenizer import bpe


def make_folder(path: Path, texts: Sequence[str], context: int) -> Path:
    """A model of 320 ids with a tokenizer made from ``texts``."""
    tokenizer = bpe.train([*texts] * 20, vocab_size=320, pad_to=64)
    decoder = Decoder(
        DecoderConfig(
            vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=context, initializer_range=0.2,
        )
    )  # fmt: skip
    decoder.initialise(1)
    save_decoder(decoder, path, {"eos_token_id": tokenizer.im_end, "pad_token_id": tokenizer.endoftext})
    tokenizer.save(path)
    return path

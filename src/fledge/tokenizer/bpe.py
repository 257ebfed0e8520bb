"""Training a byte-level BPE tokenizer as Qwen's: NFC, Qwen's pre-tokeniser, single digits, no token at the start.

The 256 bytes come first, merges follow in the order of training, and the control tokens stand behind all regular
ids, where adding regular ids later would move them only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from fledge.core.errors import ConfigError, DataError
from fledge.tokenizer.bytelevel import CONTROL_STRINGS, ENDOFTEXT, IM_END, QWEN_PATTERN, byte_alphabet
from fledge.tokenizer.template import write_template
from fledge.tokenizer.tokenizer import Tokenizer

MINIMUM_FREQUENCY = 2  # a pair seen once teaches nothing


def train(
    texts: Iterable[str],
    vocab_size: int,
    pad_to: int = 64,
    default_system: str | None = None,
    model_max_length: int = 32768,
) -> Tokenizer:
    """Train on texts, which are read once. The same texts in any order give the same tokenizer.

    ``vocab_size`` is the number of embedding rows: regular ids, then the three control tokens, then what padding to
    a multiple of ``pad_to`` needs. Where the texts have too few pairs to fill it, there are fewer rows.
    """
    check_size(vocab_size, pad_to)
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Backend

    backend = Backend(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(CONTROL_STRINGS),
        min_frequency=MINIMUM_FREQUENCY,
        initial_alphabet=list(byte_alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_counted(texts), trainer)
    regular = backend.get_vocab_size()
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL_STRINGS])
    used = regular + len(CONTROL_STRINGS)
    rows = -(-used // pad_to) * pad_to
    config = _hugging_face_config(regular, rows, model_max_length, write_template(default_system))
    return Tokenizer(backend.to_str(pretty=False), config, config["chat_template"], "trained tokenizer")


def check_size(vocab_size: int, pad_to: int) -> None:
    """Refuse a size that has no room for bytes and control tokens, or is no multiple of the padding."""
    least = 256 + len(CONTROL_STRINGS)
    if vocab_size < least:
        raise ConfigError(f"vocab_size: {vocab_size} is too small; bytes and control tokens alone need {least}")
    if vocab_size % pad_to:
        below = vocab_size // pad_to * pad_to
        raise ConfigError(
            f"vocab_size: {vocab_size} is no multiple of pad_to ({pad_to}), and the embedding's rows are; "
            f"use {below} or {below + pad_to}"
        )


def _counted(texts: Iterable[str]) -> Iterator[str]:
    empty = True
    for text in texts:
        empty = empty and not text
        yield text
    if empty:
        raise DataError("there is no text to train a tokenizer on: the inputs are empty")


def _hugging_face_config(regular: int, rows: int, model_max_length: int, template: str) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "added_tokens_decoder": {
            str(regular + i): {"content": text, **flags} for i, text in enumerate(CONTROL_STRINGS)
        },
        "add_prefix_space": False,
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "embedding_rows": rows,
        "eos_token": IM_END,
        "errors": "replace",
        "model_max_length": model_max_length,
        "pad_token": ENDOFTEXT,
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
        "chat_template": template,
    }


def compression(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """Tokens, bytes and characters of texts, and their ratios (weighted by the corpus, not a mean over documents)."""
    tokens = size = characters = 0
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        size += len(text.encode("utf-8"))
        characters += len(text)
    tokens = sum(map(len, tokenizer.encode_batch(batch)))
    return {
        "tokens": tokens,
        "bytes": size,
        "characters": characters,
        "tokens_per_byte": round(tokens / max(1, size), 4),
        "bytes_per_token": round(size / max(1, tokens), 3),
        "characters_per_token": round(characters / max(1, tokens), 3),
    }

"""A model folder in memory: decoder, tokenizer and generation defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fledge.core.errors import ArtefactError
from fledge.model.adapters import tokenizer_folder
from fledge.model.decoder import Decoder
from fledge.model.hf import load_decoder, read_json

if TYPE_CHECKING:
    from fledge.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class LoadedModel:
    """``generation`` is generation_config.json as it is (empty where there is none)."""

    decoder: Decoder
    tokenizer: Tokenizer
    generation: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None


def load(folder: Path | str, dtype: torch.dtype | None = None) -> LoadedModel:
    """Read a Hugging Face folder of a known architecture (Qwen2, Qwen2.5, Llama-shaped) from disk.

    ``dtype`` is float32 on a CPU and bfloat16 on a GPU that has it, unless given. Raises ArtefactError, with what to
    do, for anything that is missing, damaged or not supported.
    """
    from fledge.tokenizer.tokenizer import Tokenizer

    folder = Path(folder).expanduser()
    on_gpu = torch.cuda.is_available()
    if dtype is None:
        dtype = torch.bfloat16 if on_gpu and torch.cuda.is_bf16_supported() else torch.float32
    decoder = load_decoder(folder, dtype).eval()
    words = tokenizer_folder(folder)
    if not (words / "tokenizer.json").is_file() and not (words / "vocab.json").is_file():
        raise ArtefactError(f"{folder}: holds a model but no tokenizer.json, so it can neither read nor write text")
    tokenizer = Tokenizer.load(words)
    if tokenizer.vocab_size > decoder.config.vocab_size:
        raise ArtefactError(
            f"{folder}: the tokenizer uses {tokenizer.vocab_size} ids, but the embedding has "
            f"{decoder.config.vocab_size} rows; this tokenizer does not belong to this model"
        )
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    return LoadedModel(decoder.to("cuda") if on_gpu else decoder, tokenizer, generation, folder)

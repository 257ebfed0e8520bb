"""Perplexity of a text under a model of Fledge: bits per byte, as pretraining measures them on held-out text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_MICRO_TOKENS = 4096  # of one forward pass


class Checkpoint:
    """A model and its tokenizer, on the GPU where there is one. Only the beginning of a text is read."""

    def __init__(self, folder: Path | str, characters: int = 4_000) -> None:
        """Raises `ArtefactError` for a folder that holds no model, or one without a tokenizer."""
        from fledge.generate.loaded import load

        self.loaded = load(folder)
        self.characters = characters
        self.context = self.loaded.decoder.config.max_position_embeddings

    def score(self, texts: Sequence[str], languages: Sequence[str]) -> dict[str, np.ndarray]:
        """``bits_per_byte``: (texts,) float32; NaN for an empty text.

        Of every token but the first, which nothing predicts, and of the end, over the bytes of what is read: as
        `fledge.stages.pretrain.BitsPerByte`. A text longer than the context is read in pieces.
        """
        from fledge.train.batch import Example, single
        from fledge.train.scoring import reference_logp

        cut = [text[: self.characters] for text in texts]
        tokenizer = self.loaded.tokenizer
        examples: list[Example] = []
        owner: list[int] = []  # the text of each predicted token
        for number, ids in enumerate(tokenizer.encode_batch(cut)):
            tokens = np.array([*ids, tokenizer.endoftext], np.int32)
            for begin in range(0, len(tokens) - 1, self.context - 1):
                piece = tokens[begin : begin + self.context]
                weight = np.ones(len(piece), np.float32)
                weight[0] = 0.0
                examples.append(single(piece, weight))
                owner += [number] * (len(piece) - 1)
        size = np.array([len(text.encode("utf-8", "replace")) for text in cut], np.float64)
        nats = np.zeros(len(cut))
        if examples:
            parameter = next(self.loaded.decoder.parameters())
            logp = reference_logp(
                examples, self.loaded.decoder, parameter.dtype, _MICRO_TOKENS, str(parameter.device)
            )  # fmt: skip
            nats -= np.bincount(owner, logp.astype(np.float64), len(cut))
        bits = np.divide(nats / math.log(2), size, out=np.full(len(cut), np.nan), where=size > 0)
        return {"bits_per_byte": bits.astype(np.float32)}

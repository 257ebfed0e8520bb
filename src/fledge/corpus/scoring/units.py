"""What an n-gram model reads a text as: words, characters, or the tokens of a tokenizer, as 64-bit hashes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from fledge.core.config import Config
from fledge.corpus.scoring.words import hash_words, prepared
from fledge.corpus.text.tokens import mix, normalise

if TYPE_CHECKING:
    from fledge.tokenizer.tokenizer import Tokenizer

START, END, UNKNOWN = 0, 1, 2  # numbers of what is no unit of a text
_BLANKS = re.compile(r"[^\S\n]+|\n\s*")


class UnitsConfig(Config):
    """The unit of the model."""

    kind: Literal["words", "characters", "tokens"] = Field(
        "words",
        description="words: words, marks, line ends, and single Han characters, numbers by their length alone; "
        "characters: for Chinese; tokens: of the tokenizer that is given",
    )
    characters: int = Field(20_000, ge=100, description="only the beginning of a longer text is read")


class Units:
    """Texts -> hashes of their units. ``folder``: of the tokenizer, where units are its tokens."""

    def __init__(self, config: UnitsConfig, folder: Path | None = None, fingerprint: str = "") -> None:
        self.config = config
        self.fingerprint = fingerprint
        self._tokenizer: Tokenizer | None = None
        if folder is not None:
            from fledge.tokenizer.tokenizer import Tokenizer

            self._tokenizer = Tokenizer.load(folder)

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(U,) uint64 hashes of all units one behind the other, (texts,) how many each text has, (texts,) characters
        of what was read, all without what is cut off."""
        cut = [text[: self.config.characters] for text in texts]
        if self._tokenizer is not None:
            ids = self._tokenizer.encode_batch(cut)
            lengths = np.array([len(one) for one in ids], np.int64)
            # Spread, because hashes are kept sorted and numbers of tokens would come in one lump.
            flat = mix(np.fromiter((i for one in ids for i in one), np.uint64, int(lengths.sum())))
            return flat, lengths, np.array([len(text) for text in cut], np.int64)
        if self.config.kind == "characters":
            normal = [_BLANKS.sub(_blank, normalise(text)).strip() for text in cut]
            lengths = np.array([len(text) for text in normal], np.int64)
            points = np.frombuffer("".join(normal).encode("utf-32-le", "surrogatepass"), np.uint32)
            return mix(points.astype(np.uint64) + np.uint64(1)), lengths, lengths
        hashes, starts = hash_words([prepared(text, "", "characters") for text in cut])
        inside = np.ones(len(hashes), bool)
        inside[starts[1:] - 1] = False  # end marks
        return hashes[inside], np.diff(starts) - 1, np.array([len(text) for text in cut], np.int64)


def _blank(match: re.Match[str]) -> str:
    return "\n" if match.group()[0] == "\n" else " "

"""Words and pairs of words of a text as buckets of a hash table: what the quality classifier reads.

As in fastText's supervised mode (Joulin et al. 2017, arXiv 1607.01759): words and word n-grams are hashed into a fixed
number of buckets, so there is no vocabulary to build, to store or to miss a word. Punctuation and line ends are words
here, because menus, lists and advertisements differ from prose by them more than by their nouns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from fledge.core.config import Config
from fledge.corpus.scoring.words import Chinese, hash_words, prepared, words_of
from fledge.corpus.text.tokens import han_count, ladder, latin_count, mix


class FeaturesConfig(Config):
    """What the classifier sees of a text."""

    bits: int = Field(18, ge=8, le=26, description="the table has 2**bits buckets; a label costs 4 * 2**bits bytes")
    order: int = Field(2, ge=1, le=4, description="longest n-gram of words; 2 as fastText's filters of DCLM and others")
    chinese: Chinese = Field("characters", description="what a word is in Chinese: a character, or rjieba's word")
    characters: int = Field(10_000, ge=100, description="only the beginning of a longer text is read")

    @property
    def buckets(self) -> int:
        return 1 << self.bits


def script(text: str) -> str:
    """``zh`` where Han characters outweigh Latin letters (one says about as much as three), else ``other``."""
    return "zh" if 3 * han_count(text) > latin_count(text) else "other"


class Features:
    """Texts -> buckets."""

    def __init__(self, config: FeaturesConfig) -> None:
        self.config = config

    def words(self, text: str, language: str) -> list[str]:
        """The text's words, with an end mark behind them: so that no text is without."""
        return words_of(self._prepared(text, language), self.config.chinese)

    def __call__(self, texts: Sequence[str], languages: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(W, order) int32 buckets of the n-grams that begin at each of the W words of all texts, and (texts + 1,)
        where each text begins. An n-gram that would reach into the next text is the bucket ``config.buckets``, whose
        weight is 0."""
        normal = [self._prepared(text, language) for text, language in zip(texts, languages, strict=True)]
        hashes, starts = hash_words(normal, self.config.chinese)
        return self._buckets(hashes, starts), starts

    def _prepared(self, text: str, language: str) -> str:
        if self.config.chinese == "words" and not language:
            language = script(text)
        return prepared(text[: self.config.characters], language, self.config.chinese)

    def _buckets(self, hashes: np.ndarray, starts: np.ndarray) -> np.ndarray:
        result = np.full((len(hashes), self.config.order), self.config.buckets, np.int32)
        for n, grams in ladder(hashes, self.config.order):
            result[: len(grams), n - 1] = mix(grams) >> np.uint64(64 - self.config.bits)
            for behind in range(1, n):  # the last words of every text begin no n-gram
                result[np.maximum(starts[1:] - behind, starts[:-1]), n - 1] = self.config.buckets
        return result

"""Words and pairs of words of a text as buckets of a hash table: what the quality classifier reads.

As in fastText's supervised mode (Joulin et al. 2017, arXiv 1607.01759): words and word n-grams are hashed into a fixed
number of buckets, so there is no vocabulary to build, to store or to miss a word. Punctuation and line ends are words
here, because menus, lists and advertisements differ from prose by them more than by their nouns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import xxhash
from pydantic import Field

from fledge.core.config import Config
from fledge.corpus.tokens import HAN, han_count, latin_count, mix, normalise

Chinese = Literal["characters", "words"]
_WORD = re.compile(rf"[^\W\d_{HAN}]+|[{HAN}]|\d+|[^\w\s]|\n")
_ZEROS = str.maketrans("123456789", "000000000")
_PAIR = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplying by it is a bijection
_REMEMBERED = 500_000  # words whose hashes are kept


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


def words_of(text: str, language: str = "", chinese: Chinese = "characters") -> list[str]:
    """Words, marks and line ends in NFKC and lower case. Of a number only its length counts: 1984 is 0000."""
    normal = normalise(text).translate(_ZEROS)
    if chinese == "words" and language == "zh":
        import rjieba

        return [word for word in rjieba.cut(normal) if word == "\n" or not word.isspace()]
    return _WORD.findall(normal)


class WordHashes(dict[str, int]):
    """Word -> 64-bit hash, the same in every process."""

    def __missing__(self, word: str) -> int:
        value = self[word] = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        return value


class Features:
    """Texts -> buckets."""

    def __init__(self, config: FeaturesConfig) -> None:
        self.config = config
        self._known = WordHashes()

    def words(self, text: str, language: str) -> list[str]:
        """The text's words, with an end mark behind them: so that no text is without."""
        config = self.config
        if config.chinese == "words" and not language:
            language = script(text)
        return [*words_of(text[: config.characters], language, config.chinese), "\0"]

    def __call__(self, texts: Sequence[str], languages: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(W, order) int32 buckets of the n-grams that begin at each of the W words of all texts, and (texts + 1,)
        where each text begins. An n-gram that would reach into the next text is the bucket ``config.buckets``, whose
        weight is 0."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        lists = [self.words(text, language) for text, language in zip(texts, languages, strict=True)]
        starts = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(words) for words in lists], out=starts[1:])
        total = int(starts[-1])
        hashes = np.fromiter((h for words in lists for h in map(self._known.__getitem__, words)), np.uint64, total)
        return self._buckets(hashes, starts), starts

    def _buckets(self, hashes: np.ndarray, starts: np.ndarray) -> np.ndarray:
        order, shift = self.config.order, np.uint64(64 - self.config.bits)
        result = np.full((len(hashes), order), self.config.buckets, np.int32)
        gram = hashes
        for n in range(1, order + 1):
            if n > len(hashes):
                break
            if n > 1:
                gram = gram[:-1] * _PAIR + hashes[n - 1 :]
            result[: len(gram), n - 1] = mix(gram) >> shift
            for behind in range(1, n):  # the last words of every text begin no n-gram
                result[starts[1:] - behind, n - 1] = self.config.buckets
        return result

"""A text with what rules count on it, each counted once: lines, words, characters, n-grams."""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property

import numpy as np

from fledge.corpus.tokens import HAN, Hasher, Hashes, han_count, ngrams

_WORD = re.compile(r"\S+")
_LATIN_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_HAS_WORD_CHARACTER = re.compile(r"\w")
_HAN_RUN = re.compile(rf"[{HAN}]+")
_SENTENCE_END = re.compile(r"[.!?…;。！？；]+[\"'”’」』）)]*(?=\s|$|[^\s\d])")
_hasher = Hasher()


class Measures:
    """Counts of one text. ``language`` decides what a word is: white space (as Gopher counts), or rjieba's words."""

    def __init__(self, text: str, language: str) -> None:
        self.text = text
        self.language = language

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not empty, stripped."""
        return [line for line in (line.strip() for line in self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        return [part for part in (part.strip() for part in re.split(r"\n\s*\n", self.text)) if part]

    @cached_property
    def words(self) -> list[str]:
        """English: what white space separates. Chinese: rjieba's words with a letter or digit."""
        if self.language == "zh":
            import rjieba

            return [word for word in rjieba.cut(self.text) if _HAS_WORD_CHARACTER.search(word)]
        return _WORD.findall(self.text)

    @cached_property
    def plain_words(self) -> list[str]:
        """Lower case, without punctuation: what stop words, repetition and variety are counted on."""
        if self.language == "zh":
            return [word.lower() for word in self.words]
        return _LATIN_WORD.findall(self.text.lower())

    @cached_property
    def dense(self) -> str:
        """The text in NFKC without white space: what shares of characters refer to."""
        return "".join(unicodedata.normalize("NFKC", self.text).split())

    @cached_property
    def sentences(self) -> int:
        """Sentence ends, at least 1 where there is text; a line without an end counts as none."""
        return max(1, len(_SENTENCE_END.findall(self.text))) if self.text else 0

    @cached_property
    def han(self) -> int:
        return han_count(self.text)

    @cached_property
    def _hashes(self) -> Hashes:
        """Of the units whose repetition is measured: words (en), characters but white space and punctuation (zh)."""
        if self.language == "zh":
            return np.frombuffer(self._units.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
        return _hasher(self.plain_words)

    @cached_property
    def _units(self) -> str:
        return "".join(character for character in self.dense if character.isalnum()).lower()

    @cached_property
    def _lengths(self) -> np.ndarray:
        """Characters of each unit."""
        if self.language == "zh":
            return np.ones(len(self._units), dtype=np.int64)
        return np.array([len(word) for word in self.plain_words], dtype=np.int64)

    def top_ngram_share(self, n: int) -> float:
        """Characters in the repetitions of the most frequent n-gram over all characters of units.

        The first occurrence is no repetition: (count - 1) as in CT-LLM's table; Gopher counts it as well, which makes
        a text shorter than a few n-grams look repetitive.
        """
        grams = ngrams(self._hashes, n)
        if len(grams) < 2:
            return 0.0
        _, first, counts = np.unique(grams, return_index=True, return_counts=True)
        best = int(counts.max())
        if best == 1:
            return 0.0
        widths = np.convolve(self._lengths, np.ones(n, dtype=np.int64), mode="valid")
        width = int(widths[first[counts == best]].max())
        return min(1.0, (best - 1) * width / int(self._lengths.sum()))

    def duplicate_ngram_share(self, n: int) -> float:
        """Share of characters covered by n-grams that occurred before in the text (each character once)."""
        grams = ngrams(self._hashes, n)
        if len(grams) < 2:
            return 0.0
        _, first = np.unique(grams, return_index=True)
        if len(first) == len(grams):
            return 0.0
        again = np.ones(len(grams), dtype=np.int64)
        again[first] = 0
        covered = np.convolve(again, np.ones(n, dtype=np.int64)) > 0
        return float(self._lengths[covered].sum() / self._lengths.sum())

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for word in self.plain_words:
            counts[word] = counts.get(word, 0) + 1
        return counts

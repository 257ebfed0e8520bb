"""A text with what rules count on it, each counted once: lines, words, characters, n-grams."""

from __future__ import annotations

import re
import unicodedata
from functools import cached_property

import numpy as np

from fledge.corpus.tokens import Hasher, Hashes, han_count, ladder, tokens_of_normal

_WORD = re.compile(r"\S+")
_LATIN_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_HAS_WORD_CHARACTER = re.compile(r"\w")
_SENTENCE_END = re.compile(r"[.!?…;。！？；]+[\"'”’」』）)]*(?=\s|$|[^\s\d])")
# A calculation, from its first number to its last: 3+8=11, 6 × 7 = 42. Rules on digits mean lists of numbers.
_CALCULATION = re.compile(r"\d[\d.,]*(?:\s*[-+*/×÷=<>≤≥^]\s*\d[\d.,]*)+%?")
LONGEST = 10  # n-grams that are counted
_hasher = Hasher()


class Measures:
    """Counts of one text. ``language`` decides what a word is: white space (as Gopher counts), or rjieba's words."""

    def __init__(self, text: str, language: str) -> None:
        self.text = text
        self.language = language
        self._found: dict[int, tuple[Hashes, np.ndarray, np.ndarray]] = {}
        self._no_repetition_from = 1 << 30  # n-grams of this length and longer occur once

    @cached_property
    def lines(self) -> list[str]:
        """Lines that are not empty, stripped."""
        return [line for line in (line.strip() for line in self.text.split("\n")) if line]

    @cached_property
    def stripped(self) -> str:
        """The same as one text, for rules about how lines begin and end."""
        return "\n".join(self.lines)

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
    def normal(self) -> str:
        """The text in NFKC."""
        return unicodedata.normalize("NFKC", self.text)

    @cached_property
    def dense(self) -> str:
        """The text in NFKC without white space: what shares of characters refer to."""
        return "".join(self.normal.split())

    @cached_property
    def wordy(self) -> str:
        """The text without its calculations."""
        return _CALCULATION.sub(" ", self.text)

    @cached_property
    def sentences(self) -> int:
        """Sentence ends, at least 1 where there is text; a line without an end counts as none."""
        return max(1, len(_SENTENCE_END.findall(self.text))) if self.text else 0

    @cached_property
    def han(self) -> int:
        return han_count(self.text)

    @cached_property
    def tokens(self) -> list[str]:
        """Words, numbers and single Han characters: what repetition and duplicates are counted on."""
        return tokens_of_normal(self.normal.lower())

    @cached_property
    def hashes(self) -> Hashes:
        """(tokens,) uint64"""
        return _hasher(self.tokens)

    @cached_property
    def _lengths(self) -> np.ndarray:
        """Characters of each token."""
        return np.fromiter(map(len, self.tokens), dtype=np.int64, count=len(self.tokens))

    def _ngrams(self, n: int) -> tuple[Hashes, np.ndarray, np.ndarray]:
        """N-grams in order, and where each different one occurs first, and how often."""
        if n not in self._found:
            grams = self._ladder.get(n, self.hashes[:0])
            _, first, counts = np.unique(grams, return_index=True, return_counts=True)
            self._found[n] = grams, first, counts
        return self._found[n]

    @cached_property
    def _ladder(self) -> dict[int, Hashes]:
        return dict(ladder(self.hashes, LONGEST))

    def top_ngram_share(self, n: int) -> float:
        """Characters in the repetitions of the most frequent n-gram over all characters of units.

        The first occurrence is no repetition: (count - 1) as in CT-LLM's table; Gopher counts it as well, which makes
        a text shorter than a few n-grams look repetitive.
        """
        grams, first, counts = self._ngrams(n)
        if len(grams) < 2:
            return 0.0
        best = int(counts.max())
        if best == 1:
            return 0.0
        widths = np.convolve(self._lengths, np.ones(n, dtype=np.int64), mode="valid")
        width = int(widths[first[counts == best]].max())
        return min(1.0, (best - 1) * width / int(self._lengths.sum()))

    def duplicate_ngram_share(self, n: int) -> float:
        """Share of characters covered by n-grams that occurred before in the text (each character once)."""
        if n >= self._no_repetition_from:
            return 0.0
        grams, first, _ = self._ngrams(n)
        if len(first) == len(grams):
            self._no_repetition_from = n
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

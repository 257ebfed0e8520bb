"""Pages of one language with what rules count on them, each counted once: characters, lines, words, n-grams.

The texts, in NFKC, lie one behind the other as one row of code points, and everything that is counted is an array over
them: a rule costs a few passes over numbers for some hundred pages, not Python's work for each word. Words and n-grams
are compared by hashes of 64 bits (tokens.py); within a page a chance collision is one in 10^14.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fledge.corpus.text.characters import ALNUM, DIGIT, HAN, LETTER, SPACE, classes, lower
from fledge.corpus.text.tokens import Hashes, SpanHasher, token_spans

Counts = np.ndarray  # (pages,) int64
LONGEST = 10  # n-grams that are counted
# A calculation, from its first number to its last: 3+8=11, 6 × 7 = 42. Rules on digits mean lists of numbers.
_CALCULATION = re.compile(r"\d[\d.,]*(?:\s*[-+*/×÷=<>≤≥^]\s*\d[\d.,]*)+%?")
_OPERATORS = np.array([ord(c) for c in "-+*/×÷=<>≤≥^"], dtype=np.uint32)
_ENDERS = np.array([ord(c) for c in ".!?…;。！？；"], dtype=np.uint32)
_JOINERS = np.array([ord(c) for c in "'’-"], dtype=np.uint32)


@dataclass(frozen=True)
class Spans:
    """Pieces of the texts in order: from ``start`` to ``end``, of page ``page``; all (pieces,) int64."""

    start: np.ndarray
    end: np.ndarray
    page: np.ndarray

    @property
    def length(self) -> np.ndarray:
        return self.end - self.start

    def __len__(self) -> int:
        return len(self.start)

    def where(self, chosen: np.ndarray) -> Spans:
        return Spans(self.start[chosen], self.end[chosen], self.page[chosen])


class Measures:
    """Counts of texts of one language. It decides what a word is: white space (as Gopher counts), or rjieba's words."""

    def __init__(self, texts: Sequence[str], language: str) -> None:
        self.language = language
        self.pages = len(texts)
        self.normal = unicodedata.normalize("NFKC", "".join(f"{_sound(text)}\0" for text in texts))
        self.codes = np.frombuffer(self.normal.encode("utf-32-le"), dtype=np.uint32)
        self.classes = classes(self.codes)
        self.ends = np.flatnonzero(self.codes == 0)
        self.starts = np.concatenate(([0], self.ends[:-1] + 1)) if self.pages else self.ends
        assert len(self.ends) == self.pages

    # --- pieces -----------------------------------------------------------------------------------------------------

    def of_page(self, places: np.ndarray) -> np.ndarray:
        """The page of each place."""
        return np.searchsorted(self.ends, places, side="left")

    def per_page(self, pages: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """How often each page is named, or the sum of its weights: (pages,)"""
        return np.bincount(pages, weights, minlength=self.pages)[: self.pages]

    def count(self, mask: np.ndarray) -> Counts:
        """Of a mask over characters, how many are set in each page."""
        sums = np.concatenate(([0], np.cumsum(mask)))
        result: Counts = sums[self.ends] - sums[self.starts]
        return result

    def runs(self, mask: np.ndarray) -> Spans:
        """Where a mask over characters is set without a gap; a run does not go beyond its page."""
        edges = np.flatnonzero(np.diff(mask.view(np.int8), prepend=0, append=0))
        start, end = edges[::2], edges[1::2]
        return Spans(start, end, self.of_page(start))

    def has(self, mask: np.ndarray, spans: Spans) -> np.ndarray:
        """Which spans hold a character that is set: (spans,) bool"""
        sums = np.concatenate(([0], np.cumsum(mask)))
        result: np.ndarray = sums[spans.end] > sums[spans.start]
        return result

    def is_class(self, of: int) -> np.ndarray:
        return (self.classes & of) != 0

    def is_one_of(self, characters: str) -> np.ndarray:
        return np.isin(self.codes, np.array([ord(c) for c in characters], dtype=np.uint32))

    @cached_property
    def lowered(self) -> np.ndarray:
        """Code points in lower case, one for one."""
        return lower(self.codes)

    def phrases(self, phrases: Sequence[str]) -> Counts:
        """How often phrases, which are in lower case, stand in each page."""
        places = []
        for phrase in phrases:
            place = self._lowered_text.find(phrase)
            while place >= 0:
                places.append(place)
                place = self._lowered_text.find(phrase, place + 1)
        return self.per_page(self.of_page(np.array(places, dtype=np.int64)))

    @cached_property
    def _lowered_text(self) -> str:
        return self.lowered.tobytes().decode("utf-32-le")

    @cached_property
    def spaces(self) -> np.ndarray:
        return self.is_class(SPACE)

    @cached_property
    def dense(self) -> Counts:
        """Characters that are not white space: what shares of characters refer to."""
        return self.count(~self.spaces)

    @cached_property
    def hasher(self) -> SpanHasher:
        return SpanHasher(self.lowered)

    # --- lines and sentences ----------------------------------------------------------------------------------------

    @cached_property
    def lines(self) -> Spans:
        """Lines that are not empty, stripped."""
        breaks = np.flatnonzero((self.codes == 10) | (self.codes == 0))
        begin = np.concatenate(([0], breaks[:-1] + 1)) if len(breaks) else breaks
        solid = np.flatnonzero(~self.spaces)
        first, behind = np.searchsorted(solid, begin), np.searchsorted(solid, breaks)
        some = behind > first
        start = solid[first[some]]
        return Spans(start, solid[behind[some] - 1] + 1, self.of_page(start))

    @cached_property
    def line_counts(self) -> Counts:
        return self.per_page(self.lines.page)

    def line_share(self, chosen: np.ndarray) -> np.ndarray:
        """Of a mask over lines: its share of each page's lines."""
        return share(self.per_page(self.lines.page[chosen]), self.line_counts)

    def ends_with(self, tail: str) -> np.ndarray:
        """Which lines end so, in lower case: (lines,) bool"""
        found = self.lines.length >= len(tail)
        for back, character in enumerate(reversed(tail), 1):
            found &= self.lowered[np.maximum(self.lines.end - back, 0)] == ord(character)
        return found

    @cached_property
    def repeated_lines(self) -> np.ndarray:
        """Lines that stood in their page before: (lines,) bool"""
        return ~first_of_each(self.hasher(self.lines.start, self.lines.end), self.lines.page)

    @cached_property
    def paragraph_shares(self) -> tuple[np.ndarray, np.ndarray]:
        """Of paragraphs that stood in their page before: their share of paragraphs, and of the lines' characters."""
        lines = self.lines
        if not len(lines):
            return np.zeros(self.pages), np.zeros(self.pages)
        breaks = np.concatenate(([0], np.cumsum((self.codes == 10) | (self.codes == 0))))
        apart = np.concatenate(([True], breaks[lines.start[1:]] - breaks[lines.end[:-1]] > 1))
        apart[1:] |= lines.page[1:] != lines.page[:-1]
        first = np.flatnonzero(apart)
        paragraphs = Spans(lines.start[first], lines.end[np.append(first[1:], len(lines)) - 1], lines.page[first])
        again = ~first_of_each(self.hasher(paragraphs.start, paragraphs.end), paragraphs.page)
        characters = np.add.reduceat(lines.length, first)
        return (
            share(self.per_page(paragraphs.page[again]), self.per_page(paragraphs.page)),
            share(self.per_page(paragraphs.page[again], characters[again]), self.per_page(lines.page, lines.length)),
        )

    @cached_property
    def sentences(self) -> Counts:
        """Sentence ends, at least 1 where there is text. A point before a digit ends nothing."""
        ends = self.runs(np.isin(self.codes, _ENDERS))
        inside = (ends.length == 1) & (self.classes[ends.end] & DIGIT != 0)
        found = self.per_page(ends.page[~inside])
        result: Counts = np.maximum(found, (self.ends > self.starts).astype(found.dtype))
        return result

    @cached_property
    def sentence_spans(self) -> Spans:
        """What lies between ends of sentences and lines, of three characters and more, without white space around."""
        apart = np.isin(self.codes, _ENDERS) | (self.codes == 10) | (self.codes == 0)
        inner = np.flatnonzero(apart[:-1] & (self.codes[:-1] == ord(".")) & (self.classes[1:] & DIGIT != 0))
        apart[inner] = False
        runs = self.runs(~apart)
        solid = np.flatnonzero(~self.spaces)
        first, behind = np.searchsorted(solid, runs.start), np.searchsorted(solid, runs.end)
        runs, first, behind = runs.where(behind > first), first[behind > first], behind[behind > first]
        spans = Spans(solid[first], solid[behind - 1] + 1, runs.page)
        return spans.where(spans.length > 2)

    # --- words ------------------------------------------------------------------------------------------------------

    @cached_property
    def words(self) -> Spans:
        """What white space separates. Chinese: rjieba's words with a letter or digit."""
        if self.language != "zh":
            return self.runs(~self.spaces)
        words = self._cut()
        return words.where(self.has(self.is_class(ALNUM), words))

    def _cut(self) -> Spans:
        import rjieba

        texts = (self.normal[a:b] for a, b in zip(self.starts, self.ends, strict=True))
        lengths = np.array([len(word) for text in texts for word in (*rjieba.cut(text), "\0")], dtype=np.int64)
        end = np.cumsum(lengths)
        start = end - lengths
        return Spans(start, end, self.of_page(start)).where(self.codes[start] != 0)

    @cached_property
    def word_counts(self) -> Counts:
        return self.per_page(self.words.page)

    @cached_property
    def plain_words(self) -> Spans:
        """Letters, with apostrophe or hyphen between them: what variety is counted on. Chinese: the words."""
        if self.language == "zh":
            return self.words
        letters = self.is_class(LETTER)
        joins = np.isin(self.codes, _JOINERS)
        joins[1:-1] &= letters[:-2] & letters[2:]
        joins[:1] = joins[-1:] = False
        return self.runs(letters | joins)

    @cached_property
    def plain_hashes(self) -> Hashes:
        return self.hasher(self.plain_words.start, self.plain_words.end)

    # --- calculations -----------------------------------------------------------------------------------------------

    @cached_property
    def calculations(self) -> np.ndarray:
        """Characters of calculations: a mask, looked for only in pages where an operator stands between numbers."""
        mask = np.zeros(len(self.codes), dtype=bool)
        solid = np.flatnonzero(~self.spaces)
        places = np.flatnonzero(np.isin(self.codes, _OPERATORS))
        rank = np.searchsorted(solid, places)
        inner = (rank > 0) & (rank < len(solid) - 1)
        places, rank = places[inner], rank[inner]
        digits = self.is_class(DIGIT)
        before, after = solid[rank - 1], solid[rank + 1]
        likely = digits[after] & (digits[before] | np.isin(self.codes[before], (ord("."), ord(","))))
        for page in np.unique(self.of_page(places[likely])).tolist():
            for match in _CALCULATION.finditer(self.normal, int(self.starts[page]), int(self.ends[page])):
                mask[match.start() : match.end()] = True
        return mask

    def outside_calculations(self, of: int) -> np.ndarray:
        """Mask of the characters of a class that are in no calculation."""
        return self.is_class(of) & ~self.calculations

    # --- tokens and n-grams -----------------------------------------------------------------------------------------

    @cached_property
    def tokens(self) -> Spans:
        """Words, numbers and single Han characters: what repetition and duplicates are counted on."""
        han = self.is_class(HAN)
        start, end = token_spans(self.is_class(ALNUM) & ~han, han)
        return Spans(start, end, self.of_page(start))

    @cached_property
    def token_hashes(self) -> Hashes:
        return self.hasher(self.tokens.start, self.tokens.end)

    def page_hashes(self) -> list[Hashes]:
        """Hashes of each page's tokens."""
        return np.split(self.token_hashes, np.cumsum(self.per_page(self.tokens.page))[:-1]) if self.pages else []

    @cached_property
    def repetition(self) -> dict[str, np.ndarray]:
        """Shares of characters of repeated n-grams: ``top_N`` of the most frequent, N = 2 .. 4, and ``again_N`` of all
        that occurred before, N = 5 .. 10."""
        from fledge.corpus.judging.repetition import shares

        return shares(self.token_hashes, self.tokens.page, self.tokens.length, self.pages)

    @cached_property
    def han(self) -> Counts:
        return self.count(self.is_class(HAN))


def _sound(text: str) -> str:
    """Without what only the ends of texts are (0), and without halves of surrogate pairs, which no library takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", " ")


def share(part: np.ndarray, whole: np.ndarray, empty: float = 0.0) -> np.ndarray:
    """part / whole, and ``empty`` where the whole is nothing."""
    return np.divide(part, whole, out=np.full(len(whole), empty, dtype=np.float64), where=np.asarray(whole) != 0)


def groups(hashes: Hashes, page: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal hashes of a page brought together: an order of the entries, and where in it each group begins."""
    from fledge.corpus.text.tokens import mix

    keys = hashes + mix(page.astype(np.uint64) + np.uint64(1))
    order = np.argsort(keys)
    ordered = keys[order]
    begin = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if len(keys) else order
    return order, begin


def first_of_each(hashes: Hashes, page: np.ndarray) -> np.ndarray:
    """Which entries are the first of their hash in their page: (entries,) bool"""
    result = np.zeros(len(hashes), dtype=bool)
    order, begin = groups(hashes, page)
    if len(order):
        result[np.minimum.reduceat(order, begin)] = True
    return result

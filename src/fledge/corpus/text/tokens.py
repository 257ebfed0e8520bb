"""Words of English and Chinese text, and their n-grams as numbers: what rules, duplicates and contamination count.

Tokens here are language independent: a run of letters or digits, lower case after NFKC; each Han character alone.
Their 64-bit hashes are the same in every process and on every machine: a polynomial over the code points, of which
those of all pieces of a long text are made at once (`SpanHasher`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np

from fledge.corpus.text import characters
from fledge.corpus.text.characters import HAN_RANGES as HAN

_TOKEN = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_BASE = 0xD1342543DE82EF95  # of the polynomial over code points: odd, so that it has an inverse modulo 2^64
Hashes = np.ndarray  # (n,) uint64


def normalise(text: str) -> str:
    """NFKC and lower case, code point for code point: full-width letters and digits become ordinary ones."""
    normal = unicodedata.normalize("NFKC", text)
    if normal.isascii():
        return normal.lower()
    return characters.lower(characters.code_points(normal)).tobytes().decode("utf-32-le", "surrogatepass")


def tokens(text: str) -> list[str]:
    """Words and single Han characters of a text, without punctuation, blanks and symbols."""
    return _TOKEN.findall(normalise(text))


def token_spans(classes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where tokens begin and end, from the classes of the code points of normalised text: both (tokens,) int64."""
    han = (classes & characters.HAN) != 0
    plain = ((classes & characters.ALNUM) != 0) & ~han
    begins = han | (plain & ~np.concatenate(([False], plain[:-1])))
    ends = han | (plain & ~np.concatenate((plain[1:], [False])))
    return np.flatnonzero(begins), np.flatnonzero(ends) + 1


class SpanHasher:
    """Hashes of pieces of a text from sums over its beginning: with values v of the code points and H(i) the sum of
    v(j) B^j, j < i, the piece from a to b has (H(b) - H(a)) / B^a, wherever it stands (Karp and Rabin 1987)."""

    _powers = _inverses = np.empty(0, np.uint64)  # of B, for the longest text so far

    def __init__(self, codes: np.ndarray) -> None:
        if len(codes) >= len(self._powers):
            SpanHasher._powers, SpanHasher._inverses = _powers(2 * len(codes) + 1)
        terms = _values()[codes] * self._powers[: len(codes)]
        self._sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)))

    def __call__(self, start: np.ndarray, end: np.ndarray) -> Hashes:
        return mix((self._sums[end] - self._sums[start]) * self._inverses[start])


@lru_cache(maxsize=1)
def _values() -> Hashes:
    """A number as good as random for each code point."""
    return mix(np.arange(1, 0x110001, dtype=np.uint64) * MULTIPLIER)


def _powers(count: int) -> tuple[Hashes, Hashes]:
    """B^0, B^1, ... and those of its inverse, modulo 2^64."""
    made = [np.full(count, number, dtype=np.uint64) for number in (_BASE, pow(_BASE, -1, 1 << 64))]
    for powers in made:
        powers[0] = 1
    return np.cumprod(made[0], dtype=np.uint64), np.cumprod(made[1], dtype=np.uint64)


def hash_tokens(items: Iterable[str]) -> Hashes:
    """(tokens,) uint64, as `SpanHasher` has them."""
    items = list(items)
    end = np.cumsum(np.fromiter(map(len, items), dtype=np.int64, count=len(items)))
    return SpanHasher(characters.code_points("".join(items)))(np.concatenate(([0], end[:-1])) if items else end, end)


def ngrams(hashes: Hashes, n: int) -> Hashes:
    """Hashes of the n-grams of a sequence: (len - n + 1,), empty where the sequence is shorter than n."""
    for length, result in ladder(hashes, n):
        if length == n:
            return result
    return np.empty(0, dtype=np.uint64)


def ladder(hashes: Hashes, longest: int) -> Iterator[tuple[int, Hashes]]:
    """(n, hashes of the n-grams) for n = 1 .. longest, each made from the one before; ends where the sequence does.

    A polynomial in an odd number over the tokens' own 64-bit hashes: equal for equal n-grams, and as good as random.
    """
    result = hashes
    for n in range(1, longest + 1):
        if n > len(hashes):
            return
        if n > 1:
            result = result[:-1] * MULTIPLIER + hashes[n - 1 :]
        yield n, result


def mix(values: Hashes) -> Hashes:
    """A bijection of 64-bit numbers that spreads every bit (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: Hashes = values ^ (values >> np.uint64(31))
    return result


def shingles(hashes: Hashes, n: int = 5) -> Hashes:
    """The set of n-grams, sorted; of a text shorter than n tokens, the one n-gram of all its tokens."""
    if len(hashes) == 0:
        return np.empty(0, dtype=np.uint64)
    return np.unique(mix(ngrams(hashes, min(n, len(hashes)))))


def jaccard(a: Hashes, b: Hashes) -> float:
    """|A ∩ B| / |A ∪ B| of two sorted sets without repetition; 1 for two empty ones."""
    if len(a) == 0 and len(b) == 0:
        return 1.0
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common)


def han_count(text: str) -> int:
    return 0 if text.isascii() else characters.count(text, characters.HAN)


def latin_count(text: str) -> int:
    return characters.count(text, characters.LATIN)


def kana_hangul_count(text: str) -> int:
    """Characters that Japanese and Korean have and Chinese has not."""
    return 0 if text.isascii() else characters.count(text, characters.KANA_HANGUL)

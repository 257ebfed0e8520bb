"""Words of English and Chinese text, and their n-grams as numbers: what rules, duplicates and contamination count.

Tokens here are language independent: a run of letters or digits, lower case after NFKC; each Han character alone.
Their 64-bit hashes are the same in every process and on every machine, and the same wherever words are hashed here:
`SpanHasher` says what they are, and makes those of all pieces of a long text at once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

from fledge.corpus.text import characters
from fledge.corpus.text.characters import HAN_RANGES as HAN

_TOKEN = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # of all polynomials: odd, so that it has an inverse modulo 2^64
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


def token_spans(run: np.ndarray, alone: np.ndarray, first: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Where tokens begin and end, both (tokens,) int64: a token is a run of code points of one mask, or a single one of
    the other. ``first`` marks code points that begin a text, and so a token."""
    goes_on = run[:-1] & run[1:]
    if first is not None:
        goes_on &= ~first[1:]
    inside = run | alone
    begins, ends = inside.copy(), inside
    begins[1:] &= ~goes_on
    ends[:-1] &= ~goes_on
    return np.flatnonzero(begins), np.flatnonzero(ends) + 1


class SpanHasher:
    """Hashes of pieces of a text: of the code points c(1) .. c(n), mixed, sum (c(i) + 1) M^(n - i) modulo 2^64.

    From sums over the text's beginning, S(i) = sum (c(j) + 1) M^-(j + 1), j < i: the piece from a to b has
    (S(b) - S(a)) M^b, wherever it stands (Karp and Rabin 1987). shingle_loops.cpp makes the same numbers.
    """

    _powers = _inverses = np.empty(0, np.uint64)  # of M, for the longest text so far

    def __init__(self, codes: np.ndarray) -> None:
        if len(codes) >= len(self._powers):
            SpanHasher._powers, SpanHasher._inverses = _powers(2 * len(codes) + 1)
        terms = (codes + np.uint64(1)) * self._inverses[1 : len(codes) + 1]
        self._sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)))

    def __call__(self, start: np.ndarray, end: np.ndarray) -> Hashes:
        return mix((self._sums[end] - self._sums[start]) * self._powers[end])


def _powers(count: int) -> tuple[Hashes, Hashes]:
    """M^0, M^1, ... and those of its inverse, modulo 2^64."""
    number = int(MULTIPLIER)
    made = [np.full(count, base, dtype=np.uint64) for base in (number, pow(number, -1, 1 << 64))]
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

    A polynomial over the tokens' own 64-bit hashes: equal for equal n-grams, and as good as random.
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

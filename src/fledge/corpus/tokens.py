"""Words of English and Chinese text, and their n-grams as numbers: what rules, duplicates and contamination count.

Tokens here are language independent: a run of letters or digits, lower case after NFKC; each Han character alone.
Their 64-bit hashes are the same in every process and on every machine (xxhash of UTF-8).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np
import xxhash

HAN = "㐀-䶿一-鿿豈-﫿𠀀-𲎯"
_TOKEN = re.compile(rf"[{HAN}]|[^\W_{HAN}]+")
_HAN = re.compile(rf"[{HAN}]")
_KANA_HANGUL = re.compile("[\u3041-\u30ff\uac00-\ud7af\u1100-\u11ff]")
_LATIN = re.compile("[A-Za-z]")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
Hashes = np.ndarray  # (n,) uint64


def normalise(text: str) -> str:
    """NFKC and lower case: full-width letters and digits become ordinary ones."""
    return unicodedata.normalize("NFKC", text).lower()


def tokens(text: str) -> list[str]:
    """Words and single Han characters of a text, without punctuation, blanks and symbols."""
    return _TOKEN.findall(normalise(text))


def tokens_of_normal(normal: str) -> list[str]:
    """`tokens` of a text that is normalised already."""
    return _TOKEN.findall(normal)


class Hasher:
    """Token -> 64-bit hash, remembered while the memory is worth it."""

    def __init__(self, remembered: int = 500_000) -> None:
        self._known: dict[str, int] = {}
        self._remembered = remembered

    def __call__(self, items: Iterable[str]) -> Hashes:
        known = self._known
        if len(known) > self._remembered:
            known.clear()
        values = []
        for item in items:
            value = known.get(item)
            if value is None:
                value = known[item] = xxhash.xxh3_64_intdigest(item.encode("utf-8", "surrogatepass"))
            values.append(value)
        return np.array(values, dtype=np.uint64)


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
            result = result[:-1] * _MULTIPLIER + hashes[n - 1 :]
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
    return len(_HAN.findall(text))


def latin_count(text: str) -> int:
    return len(_LATIN.findall(text))


def kana_hangul_count(text: str) -> int:
    """Characters that Japanese and Korean have and Chinese has not."""
    return len(_KANA_HANGUL.findall(text))

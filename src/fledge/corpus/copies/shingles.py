"""Texts -> shingles: the n-grams of their tokens as sorted sets of 32-bit hashes, many texts at once.

A token is a run of letters and digits, and each Han character alone (``words``), a word of rjieba (``segmented``),
or one letter or digit (``characters``), after NFKC and in lower case. Its hash is `SpanHasher`'s; a shingle's is a
polynomial of its tokens' hashes, mixed, of which the upper 32 bits stay. Two
different shingles of two documents of 1,000 are one with a chance of 2.3e-4 (n^2 / 2^32), which moves their Jaccard
similarity by 1e-3 at most. All are the same in every process and on every machine.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fledge.corpus.copies.shingle_loops import address, loops
from fledge.corpus.text import characters
from fledge.corpus.text.tokens import HAN, MULTIPLIER, Hashes, SpanHasher, mix, normalise, token_spans

Unit = Literal["words", "segmented", "characters"]
BATCH = 1 << 20  # characters that are hashed together: about 30 MB of arrays
_BETWEEN, _RUN, _ALONE = 0, 1, 2
_HAN = re.compile(rf"[{HAN}]")


@dataclass(frozen=True)
class Shingles:
    """Sorted sets of several texts one behind the other: ``values`` (all,) uint32, ``ends`` (texts,) int64."""

    values: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> np.ndarray:
        begin = int(self.ends[index - 1]) if index else 0
        values: np.ndarray = self.values[begin : int(self.ends[index])]
        return values

    @property
    def sizes(self) -> np.ndarray:
        return np.diff(self.ends, prepend=0)


def shingles(texts: Sequence[str], n: int = 5, unit: Unit = "words") -> Shingles:
    """The sets of n-grams; of a text shorter than n tokens, the one n-gram of all its tokens.

    All texts are held as code points: give about `BATCH` characters together (`batches`).
    """
    hashes, ends = token_hashes(texts, unit)
    grams, gram_ends = _ngrams(hashes, ends, n)
    values = (mix(grams) >> np.uint64(32)).astype(np.uint32)
    sizes = np.diff(gram_ends, prepend=0)
    number = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
    whole = np.sort((number << np.uint64(32)) | values)  # one sort for all sets
    first = np.ones(len(whole), dtype=bool)
    first[1:] = whole[1:] != whole[:-1]
    whole = whole[first]
    ends = np.searchsorted(whole, np.arange(1, len(sizes) + 1, dtype=np.uint64) << np.uint64(32)).astype(np.int64)
    return Shingles(whole.astype(np.uint32), ends)


def batches(texts: Sequence[str], size: int = BATCH) -> Iterator[Sequence[str]]:
    """Neighbouring texts together, up to a number of characters; a longer text alone."""
    begin = held = 0
    for number, text in enumerate(texts):
        if number > begin and held + len(text) > size:
            yield texts[begin:number]
            begin, held = number, 0
        held += len(text)
    if begin < len(texts):
        yield texts[begin:]


def token_hashes(texts: Sequence[str], unit: Unit = "words") -> tuple[Hashes, np.ndarray]:
    """(tokens,) uint64 of all texts one behind the other, and (texts,) int64 where those of each end."""
    plain = [_plain(text, unit) for text in texts]
    ends = np.cumsum(np.fromiter(map(len, plain), dtype=np.int64, count=len(plain)), dtype=np.int64)
    codes = np.frombuffer("".join(plain).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    compiled = loops()
    if compiled is None:
        return hash_tokens(codes, ends, classes(unit))
    hashes, token_ends = np.empty(len(codes), dtype=np.uint64), np.empty(len(ends), dtype=np.int64)
    table = classes(unit)
    compiled.fledge_tokens(
        address(codes), address(ends), len(ends), address(table), address(hashes), address(token_ends)
    )
    return hashes[: int(token_ends[-1]) if len(ends) else 0], token_ends


def hash_tokens(codes: np.ndarray, ends: np.ndarray, table: np.ndarray) -> tuple[Hashes, np.ndarray]:
    """What the loop does, in numpy: code points, where texts end, `classes` -> hashes, where those of texts end."""
    kinds = table[codes]
    first = np.zeros(len(codes) + 1, dtype=bool)  # of a text: a token does not reach into the next
    first[ends] = True
    start, end = token_spans(kinds == _RUN, kinds == _ALONE, first[:-1])
    return SpanHasher(codes)(start, end), np.searchsorted(start, ends).astype(np.int64)


def _ngrams(hashes: Hashes, ends: np.ndarray, n: int) -> tuple[Hashes, np.ndarray]:
    """Hashes of the n-grams of several sequences, and where those of each end."""
    sizes = np.diff(ends, prepend=0)
    grams = hashes
    for place in range(1, n):
        grams = grams[:-1] * MULTIPLIER + hashes[place:] if len(grams) else grams
    # An n-gram that begins in the last n - 1 tokens of a sequence would reach into the next one.
    last = np.repeat(ends - (n - 1), sizes)[: len(grams)]
    whole = grams[np.arange(len(grams)) < last]
    counts = np.maximum(sizes - (n - 1), 0)
    short = np.flatnonzero((sizes > 0) & (sizes < n))
    if len(short) == 0:
        return whole, np.cumsum(counts)
    alone = np.empty(len(short), dtype=np.uint64)
    for number, text in enumerate(short.tolist()):
        value = np.zeros(1, dtype=np.uint64)  # an array: its products are modulo 2^64 without a warning
        for token in hashes[ends[text] - sizes[text] : ends[text]]:
            value = value * MULTIPLIER + token
        alone[number] = value[0]
    whole = np.insert(whole, np.cumsum(counts)[short], alone)
    counts[short] = 1
    return whole, np.cumsum(counts)


def _plain(text: str, unit: Unit) -> str:
    plain = text.lower() if text.isascii() else normalise(text)
    if unit == "segmented" and _HAN.search(plain):
        import rjieba

        return " ".join(rjieba.cut(plain))
    return plain


@functools.cache
def classes(unit: Unit) -> np.ndarray:
    """(0x110000,) uint8: what each code point is. Letters and digits are what Python's regular expressions say."""
    kinds = characters.classes(np.arange(0x110000))
    table = np.where(kinds & characters.ALNUM, _ALONE if unit == "characters" else _RUN, _BETWEEN).astype(np.uint8)
    if unit == "words":
        table[(kinds & characters.HAN) != 0] = _ALONE
    return table

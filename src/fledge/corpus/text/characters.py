"""Classes of code points as tables, so that texts are looked at as arrays. Made once a process."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np

HAN_RANGES = "㐀-䶿一-鿿豈-﫿𠀀-𲎯"
SPACE, DIGIT, LETTER, ALNUM, HAN, LATIN, KANA_HANGUL = 1, 2, 4, 8, 16, 32, 64
_LAST_CASED = 0x1E943  # no code point above it has a lower case
# As Python's regular expressions and str have them; the 0 between texts counts as white space.
_PATTERNS = {
    SPACE: r"[\s\0]+", DIGIT: r"\d+", LETTER: r"[^\W\d_]+", ALNUM: r"[^\W_]+", HAN: rf"[{HAN_RANGES}]+",
    # not U+30FB, the middle dot, which Chinese names and titles have as well
    LATIN: "[A-Za-z]+", KANA_HANGUL: "[\u3041-\u30fa\u30fc-\u30ff\uac00-\ud7af\u1100-\u11ff]+",
}  # fmt: skip


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    every = "".join(map(chr, range(0x110000)))
    table = np.zeros(len(every), dtype=np.uint8)
    for of, pattern in _PATTERNS.items():
        for match in re.finditer(pattern, every):
            table[match.start() : match.end()] |= of
    return table


@lru_cache(maxsize=1)
def _lower() -> np.ndarray:
    table = np.arange(0x110000, dtype=np.uint32)
    for code in range(_LAST_CASED + 1):
        small = chr(code).lower()
        table[code] = ord(small[0])  # İ is the one that would become two
    return table


def classes(codes: np.ndarray) -> np.ndarray:
    """(characters,) uint8: the classes of code points, or-ed."""
    result: np.ndarray = _table()[codes]
    return result


def code_points(text: str) -> np.ndarray:
    """(characters,) uint32"""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


@lru_cache(maxsize=4)
def _tally(text: str) -> np.ndarray:
    return np.bincount(classes(code_points(text)), minlength=256)


def count(text: str, of: int) -> int:
    """How many characters of a text are of a class."""
    tally = _tally(text)
    return int(tally[(np.arange(len(tally)) & of) != 0].sum())


def lower(codes: np.ndarray) -> np.ndarray:
    """(characters,) uint32, one code point for one."""
    result: np.ndarray = _lower()[codes]
    return result

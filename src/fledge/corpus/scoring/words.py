"""Words, marks and line ends of many texts at once, each as a 64-bit number: what classifier and n-gram model read.

Texts are cut and hashed as one array of code points: Python does no work for each word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from fledge.corpus.text.tokens import HAN, SpanHasher, normalise

Chinese = Literal["characters", "words"]
_BLANK, _LETTER, _DIGIT, _HAN, _MARK = range(5)  # a mark stands alone; others are runs
_BEYOND = 0xFFFF  # stands for all code points of the higher planes: emoji, rare Han; marks
_HAN_CHARACTER = re.compile(f"[{HAN}]")


@lru_cache(maxsize=2)
def _kinds(chinese: Chinese) -> np.ndarray:
    """(65536,) uint8: what each code point is."""
    han = _HAN if chinese == "words" else _MARK
    kinds = np.full(_BEYOND + 1, _MARK, np.uint8)
    for point in range(_BEYOND + 1):
        character = chr(point)
        if _HAN_CHARACTER.match(character):
            kinds[point] = han
        elif character.isdecimal():
            kinds[point] = _DIGIT
        elif character.isalpha() or 0x300 <= point < 0x370:  # letters, and accents that stand by themselves
            kinds[point] = _LETTER
        elif character.isspace() and character != "\n":
            kinds[point] = _BLANK
    return kinds


def prepared(text: str, language: str, chinese: Chinese) -> str:
    """NFKC, lower case, without NUL; with ``words``, Chinese is cut by rjieba, blanks between its words."""
    normal = normalise(text).replace("\0", " ")
    if chinese == "words" and language == "zh":
        import rjieba

        normal = " ".join(rjieba.cut(normal))
    return normal


def hash_words(normal: Sequence[str], chinese: Chinese = "characters") -> tuple[np.ndarray, np.ndarray]:
    """Of `prepared` texts: (W,) uint64 hashes of all words, behind those of each text an end mark; (texts + 1,) where
    each text begins. Of a number only its length counts: 1984 is 0000."""
    hashes, begin, _, points = _cut(normal, chinese)
    ends = np.flatnonzero(points[begin] == 0)
    return hashes, np.concatenate([np.zeros(1, np.int64), ends + 1])


def words_of(normal: str, chinese: Chinese = "characters") -> list[str]:
    """The words of a `prepared` text, as they are hashed; the last is the end mark."""
    _, begin, end, points = _cut([normal], chinese)
    text = points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    return [text[a:b] for a, b in zip(begin.tolist(), end.tolist(), strict=True)]


def _cut(normal: Sequence[str], chinese: Chinese) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(W,) hash, begin and end of every word, and all code points, those of digits 0."""
    joined = "\0".join([*normal, ""])
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds(chinese)[np.minimum(points, _BEYOND)]
    points = np.where(kinds == _DIGIT, np.uint32(ord("0")), points)
    first = np.ones(len(points), bool)
    first[1:] = (kinds[1:] != kinds[:-1]) | (kinds[1:] == _MARK)
    begin = np.flatnonzero(first)
    if not len(begin):
        return np.empty(0, np.uint64), begin, begin, points
    end = np.append(begin[1:], len(points))
    words = kinds[begin] != _BLANK
    begin, end = begin[words], end[words]
    return SpanHasher(points)(begin, end), begin, end, points

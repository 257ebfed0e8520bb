"""One hash of a word, whoever makes it: the rules, duplicates (loops and numpy), the classifier, contamination."""

from __future__ import annotations

import random

import numpy as np
import pytest

from fledge.corpus.copies.shingle_loops import loops
from fledge.corpus.copies.shingles import token_hashes
from fledge.corpus.judging.measures import Measures
from fledge.corpus.scoring.words import hash_words, words_of
from fledge.corpus.text.tokens import hash_tokens, normalise, tokens

RANGES = ((0x20, 0x7F), (0xC0, 0x250), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0x3040, 0x3100),
          (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xFF01, 0xFF5F), (0x1F300, 0x1F650), (0x20000, 0x20100))  # fmt: skip
_64 = (1 << 64) - 1


def expected(word: str) -> int:
    """The definition, number by number: sum (c(i) + 1) M^(n - i) modulo 2^64, and splitmix64's finaliser."""
    value = 0
    for character in word:
        value = (value * 0x9E3779B97F4A7C15 + ord(character) + 1) & _64
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _64
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _64
    return value ^ (value >> 31)


def multilingual(seed: int) -> list[str]:
    """Texts of words of 1 to 12 letters of one script each, and a very long one."""
    rng = random.Random(seed)
    texts = []
    for size in (0, 1, 2, 40, 300):
        words = []
        for _ in range(size):
            begin, end = rng.choice(RANGES)
            words.append("".join(chr(rng.randrange(begin, end)) for _ in range(rng.randint(1, 12))))
        words += ["é" * (8 * size)]
        texts.append("".join(word + rng.choice((" ", " ", "\n", "，", ", ", "")) for word in words))
    return texts


@pytest.mark.parametrize("compiled", [True, False])
def test_every_hasher_has_the_definition(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiled and loops() is None:
        pytest.skip("no C++ compiler")
    if not compiled:
        monkeypatch.setattr("fledge.corpus.copies.shingles.loops", lambda: None)
    texts = multilingual(3)
    words = [tokens(text) for text in texts]
    assert max(len(word) for text in words for word in text) > 500
    wanted = [[expected(word) for word in text] for text in words]
    for text, want in zip(words, wanted, strict=True):
        assert hash_tokens(text).tolist() == want
    assert [hashes.tolist() for hashes in Measures(texts, "en").page_hashes()] == wanted
    hashes, ends = token_hashes(texts)
    assert hashes.tolist() == [number for want in wanted for number in want]
    assert np.diff(ends, prepend=0).tolist() == [len(want) for want in wanted]


def test_words_with_marks_have_it_too() -> None:
    texts = [normalise(text) for text in multilingual(4)]
    hashes, starts = hash_words(texts)
    for number, text in enumerate(texts):
        assert hashes[starts[number] : starts[number + 1]].tolist() == [expected(word) for word in words_of(text)]

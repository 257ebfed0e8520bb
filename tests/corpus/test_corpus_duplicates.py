"""Duplicates: keys, signatures, candidates, verification, survivors."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from corpus_pages import CHINESE, ENGLISH

from fledge.corpus.duplicates import Document, DuplicatesConfig, MinHash, candidate_pairs, exact_key, find_duplicates
from fledge.corpus.tokens import jaccard, ladder, mix, ngrams, shingles, tokens


def solve(texts: list[str], config: DuplicatesConfig | None = None) -> dict[int, tuple[int, float, bool]]:
    """index -> (survivor, similarity, exact)"""
    config = config or DuplicatesConfig()
    minhash = MinHash(config)
    documents = [Document(f"{i:04d}", len(text), exact_key(text)) for i, text in enumerate(texts)]
    bands = np.array([minhash.bands(minhash.signature(minhash.shingles(text))) for text in texts])
    found, _ = find_duplicates(documents, bands, lambda i: texts[i], config)
    return {item.index: (item.survivor, item.similarity, item.exact) for item in found}


def words(seed: int, count: int) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices("abcdefghijklmnop", k=6)) for _ in range(count)]


def test_tokens_are_words_and_single_han_characters() -> None:
    assert tokens("Ｈello, wörld_42！ 你好，ABC中x") == ["hello", "wörld", "42", "你", "好", "abc", "中", "x"]


def test_exact_key_ignores_case_width_blanks_and_punctuation_only() -> None:
    assert exact_key("Hello,  World! ＡＢＣ") == exact_key("hello world abc")
    assert exact_key("你好，世界。") == exact_key("你好 世界")
    assert exact_key("hello world 1") != exact_key("hello world 2")
    assert exact_key("!!!") != exact_key("???")


def test_ngrams_are_equal_where_the_tokens_are() -> None:
    a = mix(np.arange(20, dtype=np.uint64))
    assert len(ngrams(a, 5)) == 16
    assert len(ngrams(a, 21)) == 0
    doubled = np.concatenate([a[:8], a[:8]])
    grams = ngrams(doubled, 5)
    assert grams[0] == grams[8]
    assert len(np.unique(grams)) == 8
    assert all(np.array_equal(grams_n, ngrams(a, n)) for n, grams_n in ladder(a, 10))


@pytest.mark.parametrize("true", [0.5, 0.8, 0.9])
def test_minhash_is_unbiased_within_three_sigma(true: float) -> None:
    config = DuplicatesConfig(bands=16, rows=8)
    minhash = MinHash(config)
    generator = np.random.default_rng(3)
    pairs, size = 60, 2000
    common = round(2 * size * true / (1 + true))
    matches = []
    for _ in range(pairs):
        pool = generator.integers(0, 2**63, 2 * size - common, dtype=np.uint64)
        a, b = np.unique(pool[:size]), np.unique(pool[size - common :])
        assert jaccard(a, b) == pytest.approx(true, abs=0.002)
        matches.append(np.mean(minhash.signature(a) == minhash.signature(b)))
    sigma = math.sqrt(true * (1 - true) / (pairs * config.bands * config.rows))
    assert abs(np.mean(matches) - true) < 3 * sigma + 0.002


def test_near_duplicates_are_verified_by_their_true_jaccard() -> None:
    base = words(1, 400)
    near, far = list(base), list(base)
    near[200] = "changed"  # 5 of 396 shingles differ: J = 391/401
    for place in range(0, 400, 25):
        far[place] = f"other{place}"  # about 16*5 differ: J below .8, yet often a candidate
    a, b, c = " ".join(base), " ".join(near), " ".join(far)
    minhash = MinHash(DuplicatesConfig())
    assert jaccard(minhash.shingles(a), minhash.shingles(b)) == pytest.approx(391 / 401)
    assert jaccard(minhash.shingles(a), minhash.shingles(c)) < 0.8
    found = solve([a, b, c])
    assert set(found) == {1} or set(found) == {0}
    ((survivor, similarity, exact),) = found.values()
    assert survivor in (0, 1)
    assert similarity == pytest.approx(391 / 401)
    assert not exact


def test_the_longest_survives_then_the_smallest_id() -> None:
    text = " ".join(words(2, 200))
    assert solve([text, text + " tail", text.upper()]) == {
        0: (1, pytest.approx(196 / 197), False), 2: (1, pytest.approx(196 / 197), False),
    }  # fmt: skip
    assert solve([text, text]) == {1: (0, 1.0, True)}


def test_no_chains() -> None:
    """a ~ b and b ~ c, but c is unlike a: c stays, or leaves for a survivor that it resembles itself."""
    base = words(3, 300)
    b, c = list(base), list(base)
    for place in range(0, 40, 8):
        b[place] = c[place] = f"x{place}"
    for place in range(100, 140, 8):
        c[place] = f"y{place}"
    texts = [" ".join(item) for item in ([*base, "longest"], b, c)]
    minhash = MinHash(DuplicatesConfig())
    sets = [minhash.shingles(text) for text in texts]
    assert jaccard(sets[0], sets[1]) > 0.8
    assert jaccard(sets[1], sets[2]) > 0.8
    assert jaccard(sets[0], sets[2]) < 0.8
    assert list(solve(texts)) == [1]


def test_chinese_and_short_texts() -> None:
    other = CHINESE.replace("面包", "糕点")
    found = solve([CHINESE, other, ENGLISH, "你好", "再见", "你好！"])
    assert set(found) == {1, 3}
    assert found[1][:1] == (0,)
    assert found[3] == (5, 1.0, True)  # the longer of the two


def test_result_does_not_depend_on_order() -> None:
    texts = [" ".join(words(seed % 7, 100)) + f" {seed}" for seed in range(40)]
    config = DuplicatesConfig()
    minhash = MinHash(config)

    def ids(order: list[int]) -> set[tuple[str, str]]:
        documents = [Document(f"{i:04d}", len(texts[i]), exact_key(texts[i])) for i in order]
        bands = np.array([minhash.bands(minhash.signature(minhash.shingles(texts[i]))) for i in order])
        found, _ = find_duplicates(documents, bands, lambda i: texts[order[i]], config)
        return {(documents[item.index].id, documents[item.survivor].id) for item in found}

    order = list(range(40))
    expected = ids(order)
    assert len(expected) == 33
    random.Random(0).shuffle(order)
    assert ids(order) == expected


def test_large_buckets_are_cut_and_counted() -> None:
    bands = np.zeros((500, 1), dtype=np.uint64)
    pairs, cut = candidate_pairs(bands, np.arange(500), 10)
    assert cut == 1
    assert len(pairs) == 10 * 9 // 2 + 10 * 490
    assert set(pairs[:, 0]) == set(range(10))


def test_shingles_of_nothing() -> None:
    empty = np.empty(0, dtype=np.uint64)
    assert len(shingles(empty)) == 0
    assert jaccard(empty, empty) == 1.0
    assert (MinHash(DuplicatesConfig()).signature(empty) == 0xFFFFFFFF).all()

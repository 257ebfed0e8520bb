"""Duplicates: keys, shingles, signatures, candidates, verification, survivors; the same integers without a compiler."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_pages import CHINESE, ENGLISH

from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError
from fledge.corpus.copies.duplicates import DuplicatesConfig, exact_key, source_of
from fledge.corpus.copies.grouping import Grouping
from fledge.corpus.copies.shingle_loops import loops
from fledge.corpus.copies.shingles import Shingles, Unit, batches, classes, hash_tokens, shingles, token_hashes
from fledge.corpus.copies.signatures import MinHash, similarity, write_signatures
from fledge.corpus.pages import Page
from fledge.corpus.text.tokens import jaccard, ladder, mix, ngrams, normalise, tokens

Found = dict[str, tuple[str, float, bool]]
Solve = Callable[..., Found]


def group(
    folder: Path, shards: Sequence[Sequence[Page]], config: DuplicatesConfig, **options: Any
) -> tuple[Found, dict[str, Any]]:
    """id -> (survivor, similarity, exact) of what leaves, and the counts of the work with the clusters by id."""
    places = [folder / f"shard-{number}" for number in range(len(shards))]
    for place, pages in zip(places, shards, strict=True):
        place.mkdir(parents=True, exist_ok=True)
        write_signatures(place, pages, config)
    found: Found = {}
    with Grouping(places, config, folder / "grouping", **{"memory": 128, **options}) as groups:
        work: dict[str, Any] = {**groups.work, "sizes": {}}
        for number, pages in enumerate(shards):
            leaving, clusters = groups.of(number)
            found |= {pages[item.row].id: (item.survivor, item.similarity, item.exact) for item in leaving}
            work["sizes"] |= {pages[row].id: size for row, size in clusters.items()}
    assert not (folder / "grouping").exists()
    return found, work


def pages_of(texts: Sequence[str], source: str = "site/a.warc") -> list[Page]:
    return [Page(text, source, i, "text", id=f"{i:04d}") for i, text in enumerate(texts)]


@pytest.fixture
def solve(tmp_path: Path) -> Solve:
    def solved(texts: Sequence[str], config: DuplicatesConfig | None = None) -> Found:
        return group(tmp_path, [pages_of(texts)], config or DuplicatesConfig())[0]

    return solved


def one(text: str, n: int = 5, unit: Unit = "words") -> np.ndarray:
    return shingles([text], n, unit)[0]


def words(seed: int, count: int) -> list[str]:
    generator = random.Random(seed)
    return ["".join(generator.choices("abcdefghijklmnop", k=6)) for _ in range(count)]


def test_tokens_are_words_and_single_han_characters() -> None:
    text = "Ｈello, wörld_42！ 你好，ABC中x"
    assert tokens(text) == ["hello", "wörld", "42", "你", "好", "abc", "中", "x"]
    hashes, ends = token_hashes([text, "", "hello 好"])
    assert ends.tolist() == [8, 8, 10]
    assert (hashes[8], hashes[9]) == (hashes[0], hashes[4])
    assert len(np.unique(hashes)) == 8
    assert token_hashes(["ab1_cd 你"], "characters")[1].tolist() == [6]
    assert token_hashes(["今天天气很好"], "segmented")[1][0] < 6


def test_exact_key_ignores_case_width_blanks_and_punctuation_only() -> None:
    assert exact_key("Hello,  World! ＡＢＣ") == exact_key("hello world abc")
    assert exact_key("你好，世界。") == exact_key("你好 世界")
    assert exact_key("hello world 1") != exact_key("hello world 2")
    assert exact_key("!!!") != exact_key("???")
    ascii_ = "".join(map(chr, range(128)))  # has a way of its own
    assert exact_key(ascii_ + "。") == exact_key(ascii_)


def test_ngrams_are_equal_where_the_tokens_are() -> None:
    a = mix(np.arange(20, dtype=np.uint64))
    assert len(ngrams(a, 5)) == 16
    assert len(ngrams(a, 21)) == 0
    doubled = np.concatenate([a[:8], a[:8]])
    grams = ngrams(doubled, 5)
    assert grams[0] == grams[8]
    assert len(np.unique(grams)) == 8
    assert all(np.array_equal(grams_n, ngrams(a, n)) for n, grams_n in ladder(a, 10))


def test_shingles_are_the_sets_of_ngrams_whatever_is_hashed_with_them() -> None:
    texts = [ENGLISH, "", CHINESE, "one two", "!?", "one two three four five", "one two", "a b " * 50]
    together = shingles(texts)
    assert all(np.array_equal(together[i], one(text)) for i, text in enumerate(texts))
    for i, text in enumerate(texts):
        found = tokens(text)
        expected = {tuple(found[j : j + 5]) for j in range(max(1, len(found) - 4))} if found else set()
        assert len(together[i]) == len(expected), text[:20]
    assert [text for some in batches(texts, 100) for text in some] == texts
    assert max(sum(map(len, some)) for some in batches(texts, 450)) <= 450


@pytest.mark.parametrize("unit", ["words", "characters"])
def test_loops_and_numpy_make_the_same_integers(unit: Unit) -> None:
    if loops() is None:
        pytest.skip("no C++ compiler")
    generator = random.Random(5)
    alphabet = "abcXYZ019 _-.,，。中文你好éß\n\U0001f600\U00020000ﬁ"
    texts = ["".join(generator.choices(alphabet, k=generator.choice([0, 1, 7, 300]))) for _ in range(60)]
    plain = [text.lower() if text.isascii() else normalise(text) for text in texts]
    codes = np.frombuffer("".join(plain).encode("utf-32-le"), dtype=np.uint32)
    expected = hash_tokens(codes, np.cumsum([len(text) for text in plain]), classes(unit))
    found = token_hashes(texts, unit)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])
    sets = shingles(texts, 3, unit)
    for shape in ((14, 8), (9, 13), (1, 1)):
        minhash = MinHash(*shape)
        assert np.array_equal(minhash.signatures(sets), minhash.plain_signatures(sets))


def test_similarity_is_the_same_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = one(ENGLISH), one(ENGLISH + " " + ENGLISH[:200].replace("river", "stream"))
    found = similarity(a, b, len(a), len(b))
    monkeypatch.setattr("fledge.corpus.copies.signatures.loops", lambda: None)
    assert similarity(a, b, len(a), len(b)) == found == pytest.approx(jaccard(a, b))


@pytest.mark.parametrize("true", [0.5, 0.8, 0.9])
def test_minhash_and_sketches_are_unbiased_within_three_sigma(true: float) -> None:
    minhash = MinHash(16, 8)
    generator = np.random.default_rng(3)
    pairs, size, sketch = 60, 2000, 256
    common = round(2 * size * true / (1 + true))
    matches, guesses, shorter = [], [], []
    for _ in range(pairs):
        pool = generator.choice(2**32, 2 * size - common, replace=False).astype(np.uint32)
        a, b = np.sort(pool[:size]), np.sort(pool[size - common :])
        assert similarity(a, b, size, size) == pytest.approx(true, abs=0.002)
        both = minhash.signatures(Shingles(np.concatenate([a, b]), np.array([size, 2 * size])))
        matches.append(np.mean(both[0] == both[1]))
        guesses.append(similarity(a[:sketch], b, size, size))
        shorter.append(similarity(a[:sketch], b[: sketch // 2], size, size))
    for found, entries in ((matches, 128), (guesses, sketch), (shorter, sketch // 2)):
        spread = math.sqrt(true * (1 - true) / entries)  # of one pair, whose entries are independent
        assert abs(np.mean(found) - true) < 3 * spread / math.sqrt(pairs) + 0.002
        assert 0.7 * spread < np.std(found) < 1.3 * spread


def test_near_duplicates_are_verified_by_their_true_jaccard(solve: Solve) -> None:
    base = words(1, 400)
    near, far = list(base), list(base)
    near[200] = "changed"  # 5 of 396 shingles differ: J = 391/401
    for place in range(0, 400, 25):
        far[place] = f"other{place}"  # about 16*5 differ: J below .8, yet often a candidate
    a, b, c = " ".join(base), " ".join(near), " ".join(far)
    assert jaccard(one(a), one(b)) == pytest.approx(391 / 401)
    assert jaccard(one(a), one(c)) < 0.8
    found = solve([a, b, c])
    assert set(found) == {"0001"} or set(found) == {"0000"}
    ((survivor, value, exact),) = found.values()
    assert survivor in ("0000", "0001")
    assert value == pytest.approx(391 / 401)
    assert not exact


def test_the_longest_survives_then_the_smallest_id(solve: Solve) -> None:
    text = " ".join(words(2, 200))
    assert solve([text, text + " tail", text.upper()]) == {
        "0000": ("0001", pytest.approx(196 / 197), False), "0002": ("0001", pytest.approx(196 / 197), False),
    }  # fmt: skip
    assert solve([text, text]) == {"0001": ("0000", 1.0, True)}


def test_quality_comes_before_length(tmp_path: Path) -> None:
    class Judged(Page):
        quality = 0.0

    text = " ".join(words(2, 200))
    ends = ("", " tail", " longer tail")
    pages = [Judged(text + end, "site/a", i, "text", id=f"{i:04d}") for i, end in enumerate(ends)]
    for page, quality in zip(pages, (0.1, 0.9, 0.2), strict=True):
        page.quality = quality
    found, work = group(tmp_path, [pages], DuplicatesConfig())
    assert {id_: item[0] for id_, item in found.items()} == {"0000": "0001", "0002": "0001"}
    assert work["sizes"] == {"0001": 3}


def test_no_chains(solve: Solve) -> None:
    """a ~ b and b ~ c, but c is unlike a: c stays, or leaves for a survivor that it resembles itself."""
    base = words(3, 300)
    b, c = list(base), list(base)
    for place in range(0, 40, 8):
        b[place] = c[place] = f"x{place}"
    for place in range(100, 140, 8):
        c[place] = f"y{place}"
    texts = [" ".join(item) for item in ([*base, "longest"], b, c)]
    sets = [one(text) for text in texts]
    assert jaccard(sets[0], sets[1]) > 0.8
    assert jaccard(sets[1], sets[2]) > 0.8
    assert jaccard(sets[0], sets[2]) < 0.8
    assert list(solve(texts)) == ["0001"]


def test_chinese_and_short_texts(solve: Solve) -> None:
    other = CHINESE.replace("面包", "糕点")
    found = solve([CHINESE, other, ENGLISH, "你好", "再见", "你好！", "!!!", "???"])
    assert set(found) == {"0001", "0003"}
    assert found["0001"][0] == "0000"
    assert found["0003"] == ("0005", 1.0, True)  # the longer of the two


@pytest.mark.parametrize("changes", [{"unit": "segmented"}, {"preset": "ct_llm"}, {"bands": 20, "rows": 5}])
def test_other_settings_find_the_same_pair(solve: Solve, changes: dict[str, Any]) -> None:
    found = solve([CHINESE, CHINESE + "完了", ENGLISH], build(DuplicatesConfig, changes))
    assert {id_: item[0] for id_, item in found.items()} == {"0000": "0001"}


def test_presets_and_refusals() -> None:
    config = build(DuplicatesConfig, {"preset": "ct_llm", "rows": 12})
    assert (config.bands, config.rows, config.shingle, config.unit) == (9, 12, 13, "characters")
    assert build(DuplicatesConfig, config.plain()) == config
    assert build(DuplicatesConfig, {"repeat": "fineweb2"}).repeat[3] == (5, 5)
    with pytest.raises(ConfigError, match="rising from 1"):
        build(DuplicatesConfig, {"repeat": [[2, 1]]})


def test_per_source_by_default_and_across_all_on_request(tmp_path: Path) -> None:
    text = " ".join(words(2, 200))
    pages = [Page(text, label, 0, "text", id=id_) for id_, label in (("a", "crawl/1.warc"), ("b", "notes/1.txt"))]
    alone = [Page(text, label, 0, "text", id=id_) for id_, label in (("c", "x.txt"), ("d", "y.txt"))]
    assert group(tmp_path, [pages, alone], DuplicatesConfig())[0] == {"d": ("c", 1.0, True)}
    found, work = group(tmp_path, [pages, alone], DuplicatesConfig(across="all"))
    assert found == dict.fromkeys("bcd", ("a", 1.0, True))
    assert work["sizes"] == {"a": 4}
    assert source_of("crawl/deep/1.warc") == "crawl"


def many(count: int) -> list[Page]:
    """Groups of near duplicates, of exact ones, and single pages."""
    texts = [" ".join(words(seed % 7, 100)) + f" {seed}" for seed in range(count)]
    return pages_of([*texts, *texts[:3], *(" ".join(words(100 + seed, 50)) for seed in range(count))])


def test_result_depends_on_neither_order_shards_nor_threads(tmp_path: Path) -> None:
    pages = many(40)
    expected = group(tmp_path / "0", [pages], DuplicatesConfig())
    assert len(expected[0]) == 36
    random.Random(0).shuffle(pages)
    for number, options in enumerate(({"threads": 1}, {"threads": 3, "memory": 512}), 1):
        shards = [pages[:5], [], pages[5:60], pages[60:]]
        assert group(tmp_path / str(number), shards, DuplicatesConfig(), **options) == expected


def test_outcome_is_that_of_comparing_all_pairs(tmp_path: Path) -> None:
    """With so many bands that every pair above the threshold is a candidate."""
    generator = random.Random(11)
    texts: list[list[str]] = []
    for number in range(120):
        text = list(generator.choice(texts)) if texts and number % 3 else words(number, 60)
        for _ in range(generator.choice([0, 1, 1, 2])):
            text[generator.randrange(len(text))] = f"new{number}"
        texts.append(text[: generator.randint(50, 60)])
    pages = pages_of([" ".join(text) for text in texts])
    sets = {page.id: one(page.text) for page in pages}
    left: dict[str, str] = {}
    stays: list[Page] = []
    for page in sorted(pages, key=lambda page: (-len(page.text), page.id)):
        alike = (other.id for other in stays if jaccard(sets[page.id], sets[other.id]) >= 0.8)
        survivor = next(alike, None)
        if survivor is None:
            stays.append(page)
        else:
            left[page.id] = survivor
    found, work = group(tmp_path, [pages[:50], pages[50:]], DuplicatesConfig(bands=64, rows=2))
    assert {id_: item[0] for id_, item in found.items()} == left
    assert len(left) > 30
    assert work["candidate_pairs"] >= work["compared_pairs"] >= work["verified_pairs"] > 20
    assert sum(work["sizes"].values()) - len(work["sizes"]) == len(left)


def test_large_buckets_are_cut_and_counted(tmp_path: Path) -> None:
    texts = [" ".join(words(1, 300)) + f" {i}" for i in range(40)]
    config = DuplicatesConfig(largest_bucket=3)
    found, work = group(tmp_path, [pages_of(texts)], config)
    assert work["large_buckets"] > 0
    assert work["candidate_pairs"] <= 3 * 14 * 40
    assert len(found) == 39


def test_a_cut_file_of_shingles_stops_the_step(tmp_path: Path) -> None:
    pages = pages_of([" ".join(words(1, 100)) + f" {i}" for i in range(3)])
    write_signatures(tmp_path, pages, DuplicatesConfig())
    (tmp_path / "shingles.bin").write_bytes((tmp_path / "shingles.bin").read_bytes()[:-4])
    with pytest.raises(ArtefactError, match=r"shingles\.bin: is shorter"):
        Grouping([tmp_path], DuplicatesConfig(), tmp_path / "grouping").__enter__()
    assert not (tmp_path / "grouping").exists()


def test_shingles_of_nothing() -> None:
    empty = np.empty(0, dtype=np.uint32)
    assert len(shingles([])) == len(shingles([""])[0]) == 0
    assert similarity(empty, empty, 0, 0) == 1.0
    assert (MinHash(14, 8).signatures(shingles([""])) == 0xFFFFFFFF).all()

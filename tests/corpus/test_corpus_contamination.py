"""Contamination: the rule of SPEC E.5, windows, wording that test items share, short items."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from corpus_pages import CHINESE, ENGLISH, TASKS

from fledge.core.config import build
from fledge.core.errors import DataError
from fledge.core.readers import write_jsonl
from fledge.core.records import Task
from fledge.corpus.judging.contamination import ContaminationConfig, TestIndex, TestItem, lcs, read_tests
from fledge.evaluate.stage import read_verdicts, summarise
from fledge.stages import corpus

NAMES = ["Orla", "Bram", "Tess", "Juno", "Ravi", "Mika", "Nela", "Otis"]
PLACES = ["harbour", "meadow", "quarry", "orchard", "chapel", "bakery", "tunnel", "island"]


def index(*items: TestItem, **config: object) -> TestIndex:
    return TestIndex(items, ContaminationConfig.model_validate(config))


def test_lcs_example_of_the_specification() -> None:
    """Every fourth of twenty tokens replaced: LCS 15 >= 13 and >= .6 * 20, though no run is longer than 3."""
    item = [f"w{i}" for i in range(20)]
    text = [f"x{i}" if i % 4 == 3 else token for i, token in enumerate(item)]
    assert lcs(item, text) == 15
    found = index(TestItem("t", " ".join(item)), ngram=3, hits=3).find(" ".join(text))
    assert found is not None
    assert (found.test, found.lcs, found.share) == ("t", 15, 0.75)
    # No 13-gram is left, so candidates by 13-grams do not see it: the price of the default, and named in the docs.
    assert index(TestItem("t", " ".join(item))).find(" ".join(text)) is None


def test_lcs_equals_the_plain_recurrence() -> None:
    generator = random.Random(1)
    for _ in range(20):
        a, b = ([generator.choice("abcd") for _ in range(generator.randint(0, 40))] for _ in range(2))
        row = [0] * (len(b) + 1)
        for x in a:
            above = list(row)
            for j, y in enumerate(b, 1):
                row[j] = above[j - 1] + 1 if x == y else max(above[j], row[j - 1])
        assert lcs(a, b) == row[-1]


def test_a_leaked_question_is_found_in_a_long_page_and_named() -> None:
    tests = index(TestItem("eggs", TASKS), TestItem("river", ENGLISH[:300]))
    page = "\n\n".join([CHINESE * 20, "Question: " + TASKS.replace("nineteen", "eighteen"), CHINESE * 20])
    found = tests.find(page)
    assert found is not None
    assert found.test == "eggs"
    assert found.share > 0.9
    assert tests.find(CHINESE * 40) is None


def test_a_long_honest_page_is_not_contaminated_by_a_short_item() -> None:
    """As a subsequence, thirteen common words in order stand in any long text: windows keep them apart."""
    generator = random.Random(0)
    words = ["the", "a", "of", "river", "and", "mill", "to", "in", "bread", "house", "is", "was", "day", "road"]
    item = " ".join(generator.choices(words, k=25))
    page = " ".join(generator.choices(words, k=8000))
    tests = index(TestItem("t", item), ngram=3)
    assert lcs(item.split(), page.split()) >= 13
    assert index(TestItem("t", item)).find(page) is None
    assert tests.find(item + " " + page) is not None


def test_pages_that_share_the_wording_of_many_items_stay() -> None:
    frame = "Please read this carefully and then tell me in one word where the cousin of {} from the old {} was born"
    items = [TestItem(f"{n}-{p}", frame.format(n, p)) for n in NAMES for p in PLACES]
    tests = index(*items)
    assert tests.common_ngrams > 0
    assert tests.find(frame.format("Zora", "factory") + ". She was born on a ship.") is None
    found = tests.find("Quiz. " + frame.format("Juno", "quarry") + ". On a ship.")
    assert found is not None
    assert found.test == "Juno-quarry"


def test_short_items_are_found_whole_and_very_short_ones_are_counted() -> None:
    tests = index(
        TestItem("sum", "How much is 4821 plus 377?", "5198"),
        TestItem("zh", "青山镇的镇长叫什么名字？"),
        TestItem("who", "Who are you?"),
    )
    assert tests.too_short == 1
    for text, wanted in (
        ("We ask: how much is 4821 plus 377 then?", "sum"), ("问题：青山镇的镇长叫什么名字？", "zh"),
        ("How much is 4821 plus 378?", None), ("Who are you? Who are you?", None), (ENGLISH, None),
    ):  # fmt: skip
        found = tests.find(text)
        assert (found.test if found else None) == wanted
        assert found is None or found.whole


def test_reading_tests(tmp_path: Path) -> None:
    rows = [
        {
            "id": "a", "verifier": "number", "answer": {"value": "42", "tests": "x\ny"},
            "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q?"}],
        }
    ]  # fmt: skip
    write_jsonl(tmp_path / "t.jsonl", rows)
    assert read_tests([tmp_path / "t.jsonl"]) == [TestItem("a", "Q?", "42")]
    (tmp_path / "bad.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(DataError, match=r"bad.jsonl:1"):
        read_tests([tmp_path / "bad.jsonl"])
    assert TestIndex([], ContaminationConfig()).find(ENGLISH) is None


def test_what_the_corpus_says_of_each_test_item(tmp_path: Path) -> None:
    """Left for an item, kept though it shares a run of words with one, sharing nothing, too short to be told."""
    words = [f"{word}{n}" for n in range(4) for word in ("ferry", "lantern", "orchard", "violin", "pebble", "thistle")]
    shared, clean = " ".join(words), " ".join(reversed(words))
    questions = {"eggs": TASKS, "shared": shared, "clean": clean, "short": "How are you?"}
    tasks = [
        {"id": name, "messages": [{"role": "user", "content": text}], "verifier": "number", "answer": {"value": "1"}}
        for name, text in questions.items()
    ]
    write_jsonl(tmp_path / "test.jsonl", tasks)
    honest = f"{ENGLISH} Then she read aloud: {' '.join(words[3:16])}. {ENGLISH[::-1]}"
    write_jsonl(tmp_path / "pages.jsonl", [{"text": text} for text in (ENGLISH + " " + TASKS, honest, CHINESE)])
    values = {"inputs": [str(tmp_path / "pages.jsonl")], "decontaminate": [tmp_path / "test.jsonl"]}
    made = corpus.run(build(corpus.Config, values), tmp_path / "corpus")
    items = json.loads((made / "tests.json").read_text())["items"]
    assert {name: item["verdict"] for name, item in items.items()} == {
        "eggs": "clean", "shared": "shared", "clean": "clean", "short": "short",
    }  # fmt: skip
    assert (items["eggs"]["left"], items["shared"]["sharing"], items["shared"]["left"]) == (1, 1, 0)
    asked = [Task.model_validate(task) for task in tasks]
    assert read_verdicts(made, asked) == {name: item["verdict"] for name, item in items.items()}
    with pytest.raises(DataError, match=r"not compared with 1 of these tasks, as 'other'"):
        read_verdicts(made, [asked[0].model_copy(update={"id": "other"})])
    with pytest.raises(DataError, match=r"tests\.json"):
        read_verdicts(tmp_path, asked)
    rows = [{"id": t.id, "skill": "s", "language": "en", "wording": None, "level": None, "finish": "stop",
             "score": float(t.id == "eggs"), "seen": items[t.id]["verdict"]} for t in asked]  # fmt: skip
    entry = summarise(rows, [], 10, 0)["skills"]["s"]["en"]
    assert {name: (part["mean"], part["n"]) for name, part in entry["seen"].items()} == {
        "clean": (0.5, 2), "shared": (0.0, 1), "short": (0.0, 1),
    }  # fmt: skip


def test_short_chinese_items_need_more_than_a_like_wording() -> None:
    asked, other = ("用书名号括住每个词：火车 钥匙 帽子，谢谢你", "用书名号括住每个词：火车 钥匙 柠檬，再见了")
    tests = index(TestItem("t", asked))
    assert tests.find(CHINESE + other + CHINESE) is None
    found = tests.find(CHINESE + asked + CHINESE)
    assert found is not None
    assert found.threshold == 0.9
    assert index(TestItem("t", asked), short=0.6).find(CHINESE + other + CHINESE) is not None

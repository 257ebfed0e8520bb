"""The side table of values: complete, and enough to say what other thresholds would do, page by page."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from corpus_pages import CHINESE, ENGLISH, TASKS, variant
from test_corpus_classifier import make as make_classifier
from test_corpus_classifier import shop, write_sets

from fledge.commands.review import interval
from fledge.core.config import build
from fledge.core.errors import ArtefactError
from fledge.core.readers import write_jsonl
from fledge.corpus import tables
from fledge.corpus.chain import ChainConfig
from fledge.corpus.replay import replay
from fledge.corpus.values import read_values
from fledge.report.corpus import write_corpus_report
from fledge.stages import corpus

OTHER = {
    "rules": {"limits": {"en": {"words": {"min": 60}, "stop_words": None}, "zh": {"characters": {"min": 120}}}},
    "toxic": {"density": 50.0},
    "languages": {"keep": ["en", "zh", "de"]},
    "personal": {"most": 1},
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [variant(text, number)[: 60 + 37 * number] for number in range(9) for text in (ENGLISH, CHINESE)]
    texts += [
        "cheap watches buy watches online now " * 40,
        "便宜手表 名牌手表 手表批发 手表价格 手表图片 " * 20,
        "Die Kinder gehen im Frühling mit dem Boot zur Schule und singen. " * 6,
        ENGLISH + " Write to jonas.k@mail.example today.",
        "You stupid idiot, shut up, you worthless moron. " + ENGLISH[:200],
        variant(CHINESE, 5).encode().decode("gb18030", "replace"),
        "gears wheels brakes pedals saddles chains bells lights pumps tyres locks frames " * 2,
    ]
    folder = tmp_path_factory.mktemp("values")
    rows = [{"text": text, "url": f"http://a.example/{n}"} for n, text in enumerate(texts)]
    write_jsonl(folder / "pages.jsonl", rows)
    with (folder / "pages.jsonl").open("a") as file:
        file.write("{not json\n")
    return folder


def make(folder: Path, name: str, **changes: Any) -> Path:
    config = build(corpus.Config, {"inputs": [str(folder / "pages.jsonl")], "duplicates": {"near": False}, **changes})
    return corpus.run(config, folder / name)


@pytest.fixture(scope="module")
def made(pages: Path) -> Path:
    return make(pages, "corpus")


def decisions(made: Path) -> dict[str, tuple[str, str]]:
    """url -> (stage, rule), empty where the page stayed."""
    found = {}
    for path in tables.parts(made / "values"):
        about, _ = read_values(path)
        found |= dict(zip(about["url"], zip(about["stage"], about["rule"], strict=True), strict=True))
    return found


def test_every_page_has_its_values_kept_or_not(made: Path) -> None:
    table = pq.read_table(made / "values")
    ledger = [row for row in tables.rows(made / "ledger") if row["stage"] not in ("read", "duplicates")]
    assert len(table) == 25
    left = {row["id"]: (row["stage"], row["rule"]) for row in ledger}
    for row in table.to_pylist():
        assert (row["stage"], row["rule"]) == left.pop(row["id"], ("", ""))
        measured = {name for name, value in row.items() if name.startswith("rules.") and value is not None}
        assert ("rules.words" in measured) == (row["language"] == "en")
        assert ("rules.bracketed" in measured) == (row["language"] == "zh")
        assert bool(measured) == (row["language"] in ("en", "zh"))
        assert row["language.score"] is not None
        assert row["damage.share"] is not None
    assert not left
    # the ledger's value is the side table's
    values = {row["id"]: row for row in table.to_pylist()}
    for row in ledger:
        if row["stage"] == "rules":
            assert values[row["id"]][f"rules.{row['rule']}"] == row["value"]


def test_replay_of_the_same_thresholds_is_what_happened(made: Path) -> None:
    found = replay(made, ChainConfig())
    assert found.changed == 0
    took = happened(made)
    stayed = took.pop(".")
    assert {name: total.first for name in found.effects if (total := found.total(name)).first} == took
    assert sum(found.kept.values()) == stayed
    for name in found.effects:
        total = found.total(name)
        assert total.only <= total.first <= total.alone == found.overlap[name][name]


def happened(made: Path) -> dict[str, int]:
    """Pages by the step and rule that refused them, as `replay` names these; ``.``: none."""
    return dict(
        Counter(
            {"personal": "personal.any", "contamination": "contamination.any"}.get(stage, f"{stage}.{rule}")
            for stage, rule in decisions(made).values()
        )
    )


def test_replay_knows_every_step(tmp_path: Path) -> None:
    """Each of them takes a page at least; the same thresholds decide the same, and others are told of."""
    sets = write_sets(tmp_path)
    make_classifier(tmp_path / "model", {"good": sets["good"], "toxic": sets["bad"]})
    write_jsonl(
        tmp_path / "tests.jsonl",
        [{"id": "t", "messages": [{"role": "user", "content": TASKS}], "verifier": "number", "answer": {"value": "1"}}],
    )
    rng, rude = random.Random(1), "You stupid idiot, shut up, you worthless moron. "
    policy = "Our privacy policy tells you what we do with the data.\n"
    texts = [
        f"{variant(ENGLISH, 30)}\n{policy * 9}", policy * 3, f"{ENGLISH}\n\n" * 9, f"{ENGLISH} {TASKS}",
        variant(ENGLISH, 40) + " Write to jonas.k@mail.example.org", rude + ENGLISH[:200], shop(rng, "en"),
        shop(rng, "en"), variant(ENGLISH, 31), variant(CHINESE, 32), "Ein kurzer Satz über den Frühling. " * 8,
        CHINESE.encode().decode("latin-1"), ENGLISH[:40],
    ]  # fmt: skip
    write_jsonl(tmp_path / "in.jsonl", [{"text": text, "url": f"http://b.example/{n}"} for n, text in enumerate(texts)])
    values: dict[str, Any] = {
        "lines": {"drop": ["policy"]}, "duplicates": {"repeats": {"paragraphs": True, "most": 0.5}},
        "toxic": {"classifier": str(tmp_path / "model"), "probability": 0.999},
        "scores": {"classifier": str(tmp_path / "model"), "limits": {"zh": {"quality.good": {"max": 0.1}}}},
        "decontaminate": [str(tmp_path / "tests.jsonl")],
    }  # fmt: skip
    made = corpus.run(build(corpus.Config, {"inputs": [str(tmp_path / "in.jsonl")], **values}), tmp_path / "corpus")
    took = happened(made)
    found = replay(made, build(ChainConfig, values))
    assert found.changed == 0
    assert {name: total.first for name in found.effects if (total := found.total(name)).first} | {
        ".": sum(found.kept.values())
    } == took
    assert {name.partition(".")[0] for name in took} == {
        "", "damage", "language", "lines", "personal", "toxic", "contamination", "rules", "scores",
    }  # fmt: skip
    assert {"lines.too_many", "lines.repeats", "toxic.insults", "toxic.classifier"} <= set(took)
    assert took["lines.too_many"] == 1, "of which no line is left"
    values["lines"]["most"] = 0.3
    assert replay(made, build(ChainConfig, values)).total("lines.too_many").first == 2
    # what left before was not scored, and would stay now: as much is said
    values["scores"]["limits"] = {"en": {"quality.good": {"min": 0.1}}}
    assert replay(made, build(ChainConfig, values)).unmeasured["en.quality.good"] == 0
    values["rules"] = {"limits": {"en": {"words": {"min": 1}}}}
    assert replay(made, build(ChainConfig, values)).unmeasured["en.quality.good"] == 1


def test_replay_of_other_thresholds_is_what_a_new_run_does(pages: Path, made: Path) -> None:
    """Page by page, but for those of a language whose rules were not measured, which are named."""
    again = decisions(make(pages, "other", **OTHER))
    found = replay(made, build(ChainConfig, OTHER))
    before = decisions(made)
    assert found.changed == sum((again[url] == ("", "")) != (before[url] == ("", "")) for url in again) > 3
    assert sum(found.kept.values()) == sum(step == ("", "") for step in again.values())
    assert found.total("rules.words").first == sum(step == ("rules", "words") for step in again.values())
    german = {"languages": {"keep": ["de"]}, "rules": {"limits": {"de": {"words": {"min": 1}}}}}
    assert replay(made, build(ChainConfig, german)).unmeasured["de.words"] == 1


def test_the_page_shows_rules_values_and_what_other_thresholds_would_do(made: Path, tmp_path: Path) -> None:
    as_made = replay(made, ChainConfig())
    same = write_corpus_report(made, as_made, as_made, ChainConfig(), tmp_path / "same.html").read_text()
    for text in ("rules.unique words", "Overlap", "a.example", "Refuses", 'class="chart"', "村子后面"):
        assert text in same
    assert ">would stay<" not in same
    config = build(ChainConfig, OTHER)
    other = write_corpus_report(made, as_made, replay(made, config), config, tmp_path / "other.html").read_text()
    assert ">would stay<" in other
    assert "<script" not in other
    with pytest.raises(ArtefactError, match="values"):
        replay(tmp_path, ChainConfig())


def test_intervals_of_a_share() -> None:
    assert interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)  # Wilson 1927; by hand
    assert interval(45, 50) == pytest.approx((0.7864, 0.9565), abs=1e-4)
    assert np.diff(interval(500, 1000)) < 0.07
    assert json.dumps(interval(0, 5)).startswith("[0.0")


def test_pages_on_which_our_code_fails_are_said(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """One bad rule costs each page that it fails on, and the command says so."""
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import fledge.corpus.judging.rulebook as book\n"
        "def fails(page):\n"
        "    if 'gears' in page.normal:\n"
        "        raise ZeroDivisionError('no page is like this one')\n"
        "    return page.word_counts\n"
        "book.RULES['words'] = book.Rule('words', 1, '', fails)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    config = build(corpus.Config, {"inputs": [str(pages / "pages.jsonl")], "workers": 1})
    made = corpus.run(config, tmp_path / "corpus")
    found = [row for row in tables.rows(made / "ledger") if row["rule"] == "exception"]
    assert len(found) == 1
    assert "1 pages raised an exception" in capfd.readouterr().err

"""``fledge corpus``: any inputs without a file, one line of JSON at the end, and why a page is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from test_cli_doors import fledge

from fledge.commands.corpus import read_words
from fledge.core.errors import ConfigError

PAGE = (
    "The harbour of the old town lies between two hills, and the boats that leave it in the morning return with the "
    "evening tide. People who live there say that the wind decides what they will eat.\n"
)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    (folder / "good.txt").write_text(PAGE, encoding="utf-8")
    (folder / "again.txt").write_text(PAGE, encoding="utf-8")
    (tmp_path / "more.jsonl").write_text(json.dumps({"text": "buy " * 80}) + "\nnot json\n", encoding="utf-8")
    return tmp_path


def test_inputs_without_a_file(pages: Path) -> None:
    out = pages / "corpus"
    done = fledge("corpus", pages / "pages", pages / "more.jsonl", "duplicates.jaccard=0.7", "--out", out)
    assert json.loads(done.stdout.splitlines()[-1]) == {"read": 4, "kept": 1, "dropped": 2, "errors": 1}
    (document,) = pq.read_table(out / "documents").to_pylist()
    assert {"id", "text", "language", "source"} <= set(document)
    ledger = pq.read_table(out / "ledger").to_pylist()
    assert {"id", "stage", "rule", "version", "value", "threshold", "survivor"} <= set(ledger[0])
    (copy,) = [row for row in ledger if row["stage"] == "duplicates"]
    assert copy["survivor"] == document["id"]

    told = fledge("corpus", "why", out, copy["id"]).stdout
    assert "duplicates.exact" in told
    assert document["id"] in told
    assert "kept in" in fledge("corpus", "why", out, document["id"][:12]).stdout

    again = fledge("corpus", pages / "pages", pages / "more.jsonl", "duplicates.jaccard=0.7", "--out", out).stdout
    assert "done before" in again
    assert again.splitlines()[-1] == done.stdout.splitlines()[-1]


def test_words_are_inputs_values_or_a_configuration(pages: Path) -> None:
    recipe = pages / "mine.yaml"
    recipe.write_text("inputs: [elsewhere]\nduplicates: {near: false}\n", encoding="utf-8")
    alone = read_words([str(recipe)]).model_dump()
    assert alone["inputs"] == ("elsewhere",)
    mixed = read_words(["workers=2", str(pages / "more.jsonl"), str(recipe), "duplicates.exact=false"])
    both = mixed.model_dump()
    assert both["inputs"] == (str(pages / "more.jsonl"),)
    assert vars(mixed)["workers"] == 2
    assert both["duplicates"]["near"] is False
    assert both["duplicates"]["exact"] is False
    odd = pages / "a=b.txt"
    odd.write_text(PAGE, encoding="utf-8")
    assert read_words([str(odd)]).model_dump()["inputs"] == (str(odd),)
    text = pages / "page.yaml"
    text.write_text("title: a page that is YAML\n", encoding="utf-8")
    assert read_words([str(text)]).model_dump()["inputs"] == (str(text),)


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "name what to read"), (["workers=2"], "name what to read"), (["pages", "wrong.key=1"], "wrong")],
)
def test_wrong_words_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_words(words)


def test_the_door_says_what_it_takes() -> None:
    shown = fledge("corpus", "--help").stdout
    assert "why" in shown
    assert "make" in shown
    assert "duplicates.jaccard" in fledge("corpus", "--keys").stdout


def test_a_report_of_a_corpus_and_of_inputs_that_are_none_yet(pages: Path) -> None:
    out = pages / "corpus"
    fledge("corpus", pages / "pages", pages / "more.jsonl", "--out", out)
    done = fledge("corpus", "report", out, "rules.limits.en.words={min: 200}", "--out", pages / "r.html")
    assert "words" in done.stdout
    assert "1 pages are decided otherwise" in done.stdout or "2 pages are decided otherwise" in done.stdout
    assert "would stay" in (pages / "r.html").read_text(encoding="utf-8")
    inputs = (pages / "pages", pages / "more.jsonl")
    sampled = fledge("corpus", "report", *inputs, "--sample", "2", "--out", pages / "s.html")
    assert "unique_words" in sampled.stdout or "stay before duplicates" in sampled.stdout
    assert (pages / "s.html").exists()


def test_pages_are_judged_and_judging_goes_on(pages: Path) -> None:
    out, kept = pages / "corpus", pages / "judged.jsonl"
    fledge("corpus", pages / "pages", pages / "more.jsonl", "--out", out)
    first = fledge("corpus", "review", out, "-n", "5", "--out", kept, stdin="maybe\ny\nq\n").stdout
    assert "1 of 1 were right: 100%" in first
    second = fledge("corpus", "review", out, "-n", "5", "--out", kept, stdin="n\ns\n").stdout
    assert "1 of 2 were right: 50%, 95% interval 9-91%" in second
    assert [json.loads(line)["right"] for line in kept.read_text().splitlines()] == [True, False]
    stayed = fledge("corpus", "review", out, "--rule", "kept", "--out", pages / "k.jsonl", stdin="y\n").stdout
    assert "should it have stayed?" in stayed

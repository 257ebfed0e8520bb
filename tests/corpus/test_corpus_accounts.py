"""What the corpus says of itself: which tests were looked for, what became of each input, what has no effect."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from fledge.commands.summary import _print_inputs
from fledge.core.artefact import read_manifest
from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.core.readers import write_jsonl
from fledge.corpus import tables
from fledge.microworld import presets
from fledge.microworld.generate import generate
from fledge.report.collect import read_run
from fledge.report.run import write_report
from fledge.stages import corpus


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small world, notes beside it, and the corpus of both."""
    folder = tmp_path_factory.mktemp("run")
    changes = {"pages": 300, "tests_per_skill": 20, "sft_conversations": 40, "preference_pairs": 20, "rl_tasks": 10}
    (folder / "world").mkdir()
    generate(presets["smoke"].model_copy(update=changes), folder / "world")
    (folder / "notes").mkdir()
    note = "The river was high this morning, and we took the longer way over the old bridge to the market. "
    (folder / "notes/a.md").write_text(note + "There were apples, and the baker had bread for all of us.\n")
    (folder / "notes/b.md").write_text("short")
    short = {"id": "s", "messages": [{"role": "user", "content": "Why?"}], "verifier": "number", "answer": {"value": 1}}
    write_jsonl(folder / "short.jsonl", [short])
    values = {
        "inputs": [str(folder / "world/site"), str(folder / "notes")],
        "decontaminate": [str(folder / "world/test.jsonl"), str(folder / "short.jsonl")],
    }
    corpus.run(build(corpus.Config, values), folder / "corpus")
    return folder


def test_leaks_that_the_world_planted_are_gone(run: Path) -> None:
    truth = [json.loads(line) for line in (run / "world/truth.jsonl").read_text(encoding="utf-8").splitlines()]
    leaked = {row["url"] for row in truth if row["defect"] == "leaked_test"}
    kept = {row["url"] for row in tables.rows(run / "corpus/documents")}
    assert len(leaked) >= 3
    assert not leaked & kept


def test_the_manifest_says_which_tests_were_looked_for(run: Path) -> None:
    metrics = read_manifest(run / "corpus")["metrics"]
    tests = len((run / "world/test.jsonl").read_text(encoding="utf-8").splitlines()) + 1
    assert metrics["tests_too_short"] >= 1
    assert metrics["tests_indexed"] + metrics["tests_too_short"] == tests
    assert metrics["common_ngrams"] >= 0
    html = write_report(run).read_text(encoding="utf-8")
    assert "are too short to be told from honest text" in html


def test_each_input_is_accounted_for(run: Path) -> None:
    metrics = read_manifest(run / "corpus")["metrics"]
    assert metrics["inputs"]["notes"] == {"read": 2, "kept": 1}
    assert sum(counts["read"] for counts in metrics["inputs"].values()) == metrics["read"]
    console = Console(file=io.StringIO(), width=200)
    _print_inputs(console, read_run(run))
    assert isinstance(console.file, io.StringIO)
    assert f"corpus: 1 kept of 2 read from {run / 'notes'}" in console.file.getvalue()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rules": {"limits": {"chinese": {"words": {"min": 5}}}}}, r"limits\.chinese: .*there are: zh, en, code"),
        ({"languages": {"keep": ["en"]}, "rules": {"limits": {"zh": {"digits": None}}}}, r"limits\.zh: "),
        ({"languages": {"minimum": {"de": 0.4}}}, r"languages\.minimum: de: .*keep: zh, en"),
    ],
)
def test_values_for_a_language_that_is_dropped_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(corpus.Config, {"inputs": ["x"], **values})


def test_values_for_languages_that_stay_are_taken_and_survive_writing() -> None:
    values = {"inputs": ["x"], "languages": {"keep": ["en", "de"], "minimum": {"de": 0.4}}}
    config = build(corpus.Config, {**values, "rules": {"limits": {"de": {"words": {"min": 5}}, "code": {}}}})
    assert build(corpus.Config, config.plain()) == config
    assert build(corpus.Config, {"inputs": ["x"], "languages": {"keep": ["en"]}}).languages.keep == ("en",)


def test_the_corpus_takes_no_seed() -> None:
    with pytest.raises(ConfigError, match="seed"):
        build(corpus.Config, {"inputs": ["x"], "seed": 1})

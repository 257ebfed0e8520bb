"""A corpus alone says what it is made of, and its shards say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from corpus_pages import CHINESE, ENGLISH, html, variant
from typer.testing import CliRunner

from fledge.cli import app
from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.core.readers import write_jsonl
from fledge.corpus import tables
from fledge.corpus.registry import sources_of
from fledge.stages import corpus


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of no known licence; a file of rows, one with a licence of its own; source code with a licence file."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "site").mkdir()
    for i in range(4):
        text = variant(ENGLISH if i % 2 else CHINESE, i)
        (folder / "site" / f"{i}.html").write_bytes(html(text))
    rows: list[dict[str, Any]] = [{"text": variant(ENGLISH, 8 + i)} for i in range(3)]
    write_jsonl(folder / "notes.jsonl", [{**rows[0], "licence": "CC0-1.0"}, *rows[1:]])
    (folder / "tree").mkdir()
    granted = "Permission is hereby granted, free of charge, to any person obtaining a copy of this software"
    (folder / "tree" / "LICENSE").write_text(granted)
    (folder / "tree" / "a.py").write_text("def double(x):\n    return 2 * x\n\n\ndef half(x):\n    return x / 2\n" * 3)
    return folder


def make(inputs: Path, out: Path, **read: Any) -> list[dict[str, Any]]:
    named = [str(inputs / name) for name in ("site", "notes.jsonl", "tree")]
    corpus.run(build(corpus.Config, {"inputs": named, "workers": 1, "read": read}), out)
    return sources_of(out)


def test_the_registry_of_a_corpus(inputs: Path, tmp_path: Path) -> None:
    rows = make(inputs, tmp_path / "corpus", licence_of={"site": "CC-BY-4.0", "notes.jsonl": "MIT"})
    assert [row["source"] for row in rows] == ["notes.jsonl", "site", "tree"]
    notes, site, tree = rows
    texts = {row["source"]: "" for row in rows}
    for row in tables.rows(tmp_path / "corpus" / "documents", ["source", "text"]):
        texts[row["source"].partition("/")[0]] += row["text"]
    assert {row["source"]: row["characters"] for row in rows} == {name: len(text) for name, text in texts.items()}
    assert [row["documents"] for row in rows] == [3, 4, 2]  # a licence file is a text as any other
    assert set(notes["licences"]) == {"CC0-1.0", "MIT"}  # a row's own word counts more than what is configured
    assert notes["licences"]["CC0-1.0"] < notes["licences"]["MIT"]
    assert site["licences"] == {"CC-BY-4.0": site["characters"]}
    assert tree["licences"] == {"MIT": tree["characters"]}
    assert [set(row["kinds"]) for row in rows] == [{"text"}, {"html"}, {"code", "text"}]
    assert set(site["languages"]) == {"en", "zh"}
    assert all(sum(row[axis].values()) == row["characters"] for row in rows for axis in ("kinds", "languages"))
    told = CliRunner().invoke(app, ["sources", str(tmp_path / "corpus")]).output
    assert all(word in told for word in ("characters", "CC-BY-4.0", "3 sources"))


def test_a_licence_for_a_source_that_is_not_there(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"read.licence_of.notes: no input has this name; .* notes.jsonl"):
        make(inputs, tmp_path / "corpus", licence_of={"notes": "MIT"})
    assert not (tmp_path / "corpus").exists()

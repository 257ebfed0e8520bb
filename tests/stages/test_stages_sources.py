"""Shards know what they are made of: sources with kind, language, licence; instructions as plain documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stages_small import Small
from typer.testing import CliRunner

from fledge.cli import app
from fledge.core.artefact import read_manifest
from fledge.core.config import build
from fledge.core.errors import ConfigError, DataError
from fledge.core.readers import write_jsonl
from fledge.core.records import Document
from fledge.corpus.writing.groups import registry, table_of
from fledge.corpus.writing.shards import TokenShards
from fledge.stages import shards
from fledge.tokenizer.tokenizer import Tokenizer


def make(small: Small, out: Path, **values: Any) -> dict[str, Any]:
    common = {"documents": small.at("corpus"), "tokenizer": small.at("tokenizer"), "held_out": 0.2}
    shards.run(build(shards.Config, {**common, **values}), out)
    metrics: dict[str, Any] = read_manifest(out)["metrics"]
    return metrics


def documents(folder: Path) -> Path:
    """A corpus with what other stages may add: `repeat`, and licences among the metadata."""
    rows = [
        ("code/a.py", "en", "code", {"licence": "MIT"}, 1), ("code/b.py", "en", "code", {"licence": "GPL-3.0-only"}, 1),
        ("site/1", "en", "html", {}, 3), ("site/2", "zh", "html", {}, 1), ("site/3", "zh", "html", {}, 0),
    ]  # fmt: skip
    table = pa.table(
        {
            "id": [row[0] for row in rows], "text": ["some words of text " * 4] * len(rows),
            "language": [row[1] for row in rows], "source": [row[0] for row in rows], "offset": [0] * len(rows),
            "url": [""] * len(rows), "kind": [row[2] for row in rows], "meta": [json.dumps(row[3]) for row in rows],
            "repeat": pa.array([row[4] for row in rows], pa.int32()),
        }
    )  # fmt: skip
    (folder / "documents").mkdir(parents=True)
    pq.write_table(table, folder / "documents" / "part-0.parquet")
    return folder


def test_the_registry_of_sources(small: Small, tmp_path: Path) -> None:
    source = documents(tmp_path / "corpus")
    make(small, tmp_path / "out", documents=str(source), held_out=0, licences={"site": "CC-BY-4.0", "code": "none"})
    text = TokenShards(tmp_path / "out")
    length = int(text.lengths[0])
    found = json.loads((tmp_path / "out" / "sources.json").read_text(encoding="utf-8"))
    assert found == registry(tmp_path / "out")
    assert found[0]["licences"] == {"GPL-3.0-only": length, "MIT": length}  # its own, not what is configured
    assert found[1] == {
        "source": "site", "documents": 3, "tokens": 4 * length, "held_out": 0, "kinds": {"html": 4 * length},
        "languages": {"en": 3 * length, "zh": length}, "licences": {"CC-BY-4.0": 4 * length},
    }  # fmt: skip
    assert text.column("repeat").to_pylist() == [1, 1, 3, 1, 0]
    told = CliRunner().invoke(app, ["sources", str(tmp_path / "out")]).output
    assert "en 75%, zh 25%" in told
    assert "GPL-3.0-only 50%, MIT 50%" in told
    assert told.splitlines()[1].startswith("site ")  # the largest
    with pytest.raises(ConfigError, match=r"licences: no document is from 'sit' \(known: \['code', 'site'\]\)"):
        make(small, tmp_path / "no", documents=str(source), licences={"sit": "MIT"})


def test_repeats_that_nothing_heeds_are_told(small: Small, tmp_path: Path) -> None:
    make(small, tmp_path / "shards", documents=str(documents(tmp_path / "corpus")), held_out=0)
    settings = {"shards": str(tmp_path / "shards"), "tokens": 0, "batch_tokens": 64}
    with pytest.warns(UserWarning, match="which only a mixture heeds"):
        plain = small.run("pretrain", tmp_path / "plain", **settings)
    mixed = small.run("pretrain", tmp_path / "mixed", **settings, mixture={})
    rows = {(row["kind"], row["language"]): row for row in mixed["metrics"]["mixture"] if row["source"] == "site"}
    assert rows["html", "en"]["available"] == 3 * rows["html", "zh"]["available"]
    # six documents counted for the five there are: one is there three times and one not at all
    assert mixed["metrics"]["tokens"] == pytest.approx(plain["metrics"]["tokens"] * 6 / 5, rel=0.2)


def test_a_source_cannot_move_the_cursor() -> None:
    row = {"source": "a\x1b[2J", "documents": 1, "tokens": 1, "kinds": {}, "languages": {}, "licences": {"\x07": 1}}
    assert not any(sign in "\n".join(table_of([row])) for sign in "\x1b\x07")


def test_instructions_as_documents(small: Small, tmp_path: Path) -> None:
    metrics = make(small, tmp_path / "out", instructions=[small.at("world/sft.jsonl")])
    text = TokenShards(tmp_path / "out")
    kinds = text.column("kind").to_pylist()
    rows = [json.loads(line) for line in (tmp_path / "out/instructions.jsonl").read_text("utf-8").splitlines()]
    assert metrics["instructions"]["read"] == 120 == len(rows)
    held_out = TokenShards(tmp_path / "out", "held_out").column("kind").to_pylist()
    assert kinds.count("instruction") + held_out.count("instruction") == 120
    assert {row["meta"]["examples"] for row in rows} == {0, 1, 2, 4}
    assert any(row["text"].startswith("问题：") for row in rows)
    assert any("\nAnswer: " in row["text"] for row in rows)
    tokenizer = Tokenizer.load(small.at("tokenizer"))
    place = kinds.index("instruction")
    whole = {Document(**row).id: row["text"] for row in rows}[text.info(place)["id"]]
    assert text.tokens(place).tolist() == [*tokenizer.encode(whole), tokenizer.endoftext]
    # every example stood in the file before, and no line of a dialogue is lost
    said = [json.loads(line) for line in Path(small.at("world/sft.jsonl")).read_text("utf-8").splitlines()]
    for row, dialogue in zip(rows, said, strict=True):
        for message in dialogue["messages"]:
            assert message["content"].strip() in row["text"]
        # the examples stand before it, as many as are told
        assert row["text"].endswith(dialogue["messages"][-1]["content"].strip())
        asked = sum(message["role"] == "user" for message in dialogue["messages"])
        for mark in ("\nUser: ", "\nInstruction: ", "\n用户：", "\n指令："):  # no dialogue there says these itself
            assert f"\n{row['text']}".count(mark) in (0, asked + row["meta"]["examples"])
    out = small.run("pretrain", tmp_path / "model", shards=str(tmp_path / "out"),
                    mixture={"kinds": {"instruction": 0.1}, "max_epochs": 20})  # fmt: skip
    mixed = out["metrics"]["mixture"]
    share = sum(row["tokens"] for row in mixed if row["kind"] == "instruction") / out["metrics"]["tokens"]
    assert share == pytest.approx(0.1, abs=0.02)


def test_instructions_that_hold_a_test_are_left_out(small: Small, tmp_path: Path) -> None:
    words = [f"word{number}" for number in range(40)]
    question, short = " ".join(words[:20]), "what is the tall grey bird called"
    dialogues = [
        ["Tell me: " + " ".join(words[4:17]) + " ?", "no"],  # thirteen in a row
        ["Tell me: " + " ".join(words[4:16]) + " ?", "no"],  # twelve
        [f"Say, {short}?", "a heron"],
        ["what is the tall grey thing", "a heron"],
    ]
    write_jsonl(
        tmp_path / "data.jsonl",
        [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in dialogues],
    )
    tasks = [
        {"id": str(number), "messages": [{"role": "user", "content": text}], "verifier": "contains",
         "answer": {"any": ["x"]}}
        for number, text in enumerate((question, short))
    ]  # fmt: skip
    write_jsonl(tmp_path / "tests.jsonl", tasks)
    files = {"instructions": [str(tmp_path / "data.jsonl")], "decontaminate": [str(tmp_path / "tests.jsonl")]}
    metrics = make(small, tmp_path / "out", **files)
    assert (metrics["instructions"]["read"], metrics["instructions"]["contaminated"]) == (4, 2)
    kept = (tmp_path / "out" / "instructions.jsonl").read_text("utf-8")
    assert "word16" not in kept
    assert "bird" not in kept
    (tmp_path / "data.jsonl").write_text('{"messages": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"data\.jsonl:1"):
        make(small, tmp_path / "bad", **files)
    assert make(small, tmp_path / "ok", **files, on_error="skip")["instructions"]["skipped"] == 1

"""Stages corpus and shards on real files: accounts, determinism, resuming, truth, lineage, token shards."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_pages import CHINESE, ENGLISH, TASKS, html, raw_record, record, variant, write_warc

from fledge.core.artefact import read_manifest
from fledge.core.errors import ArtefactError, DataError
from fledge.core.readers import write_jsonl
from fledge.corpus import lineage, tables
from fledge.corpus.writing.shards import TokenShards, is_held_out
from fledge.stages import corpus, shards

SITE = "http://site.example"


def pages() -> list[tuple[str, str, str | None, str]]:
    """(name, language, defect, text)"""
    result: list[tuple[str, str, str | None, str]] = []
    for i in range(12):
        result.append((f"en{i}", "en", None, variant(ENGLISH, i * 3)))
        result.append((f"zh{i}", "zh", None, variant(CHINESE, i * 3)))
    result += [
        ("copy", "en", "exact_duplicate", variant(ENGLISH, 0).title()),
        ("like", "zh", "near_duplicate", variant(CHINESE, 3) + " 完"),
        ("spam", "en", "keyword_spam", "cheap watches buy watches online now " * 40),
        ("moji", "zh", "mojibake", variant(CHINESE, 5).encode().decode("gb18030", "replace")),
        ("german", "de", "wrong_language", "Die Kinder gehen im Frühling mit dem Boot zur Schule und singen. " * 6),
        ("mail", "en", "personal_data", variant(ENGLISH, 40) + " Write to jonas.k@mail.example today."),
        ("rude", "en", "toxic", "You stupid idiot, shut up, you worthless moron. " + ENGLISH[:200]),
        ("leak", "en", "leaked_test", variant(ENGLISH, 50) + "\n" + TASKS),
    ]
    return result


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "site").mkdir()
    all_pages = pages()
    for number, some in enumerate((all_pages[:16], all_pages[16:])):
        records = [raw_record("warcinfo", "", b"software: test\r\n")]
        records += [record(f"{SITE}/{name}", html(text, "The title")) for name, _, _, text in some]
        write_warc(folder / "site" / f"{number}.warc.gz", records)
    original = {"copy": f"{SITE}/en0", "like": f"{SITE}/zh1"}
    rows = [
        {
            "url": f"{SITE}/{name}", "language": language, "kind": "prose", "defect": defect, "text": text,
            "duplicate_of": original.get(name),
        }
        for name, language, defect, text in all_pages
    ]  # fmt: skip
    write_jsonl(folder / "truth.jsonl", rows)
    messages = [{"role": "user", "content": TASKS}]
    task = {"id": "eggs", "messages": messages, "verifier": "number", "answer": {"value": "570"}}
    write_jsonl(folder / "test.jsonl", [task])
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.md").write_text(variant(ENGLISH, 70))
    (folder / "notes" / "photo.txt").write_bytes(b"\0\1\2" * 100)
    (folder / "bad.jsonl").write_text(json.dumps({"text": variant(ENGLISH, 80)}) + "\n{oops\n")
    return folder


def config_of(folder: Path, **changes: Any) -> corpus.Config:
    values: dict[str, Any] = {
        "inputs": [str(folder / "site"), str(folder / "notes"), str(folder / "bad.jsonl")],
        "truth": folder / "truth.jsonl", "decontaminate": [folder / "test.jsonl"],
    }  # fmt: skip
    return corpus.Config.model_validate({**values, **changes})


def digests(folder: Path) -> dict[str, str]:
    files = [path for name in ("documents", "ledger") for path in sorted((folder / name).iterdir())]
    files += [folder / "funnel.json", folder / "truth.json"]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def made(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "corpus"
    corpus.run(config_of(inputs), out)
    return out


def test_every_record_is_accounted_for_once(made: Path) -> None:
    kept = list(tables.rows(made / "documents"))
    ledger = list(tables.rows(made / "ledger"))
    metrics = read_manifest(made)["metrics"]
    assert metrics["kept"] + metrics["dropped"] + metrics["errors"] == metrics["read"] == len(kept) + len(ledger)
    assert len({row["id"] for row in kept + ledger}) == metrics["read"]
    assert metrics["read"] == len(pages()) + 2 + 2 + 2
    assert metrics["errors"] == 2
    errors = {row["rule"]: row["excerpt"] for row in ledger if row["error"]}
    assert set(errors) == {"binary", "malformed_line"}
    assert "bad.jsonl:2" in errors["malformed_line"]
    assert {row["source"] for row in kept} >= {"site/0.warc.gz", "site/1.warc.gz", "notes/mine.md", "bad.jsonl"}
    assert all(row["survivor"] in {k["id"] for k in kept} for row in ledger if row["stage"] == "duplicates")


def test_truth_is_found_and_clean_pages_stay(made: Path) -> None:
    report = json.loads((made / "truth.json").read_text())
    assert report["missing"] == 0
    assert report["summary"]["clean"]["lost"] == 0, report["clean_lost"]
    for defect, row in report["summary"].items():
        if defect != "clean":
            assert (row["recall"], row["precision"]) == (1.0, 1.0), defect
    assert report["words_extracted"] > 0.99


def test_funnel_adds_up(made: Path) -> None:
    funnel = json.loads((made / "funnel.json").read_text())
    entering = funnel["read"]
    for stage in funnel["stages"]:
        assert stage["in"] == entering
        assert stage["dropped"] == sum(rule["dropped"] for rule in stage["rules"])
        entering = stage["out"]
    assert entering == funnel["kept"] == read_manifest(made)["metrics"]["kept"]
    shown = [rule for stage in funnel["stages"] for rule in stage["rules"] if stage["stage"] == "contamination"]
    assert shown[0]["samples"]["en"][0]["survivor"] == "eggs"


def test_same_bytes_with_two_workers(inputs: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fledge.corpus.reading.inputs.SHARD_BYTES", 1)  # a shard for each file
    corpus.run(config_of(inputs, workers=2), tmp_path / "two")
    corpus.run(config_of(inputs), tmp_path / "one")
    assert digests(tmp_path / "two") == digests(tmp_path / "one")
    assert {row["id"] for row in tables.rows(tmp_path / "two" / "documents")} == {
        row["id"] for row in tables.rows(made / "documents")
    }


def test_a_finished_corpus_is_left_alone_and_another_configuration_refused(inputs: Path, made: Path) -> None:
    before = (made / "manifest.json").stat().st_mtime_ns
    started = time.monotonic()
    corpus.run(config_of(inputs, workers=2), made)  # workers are no part of what it is
    assert time.monotonic() - started < 2
    assert (made / "manifest.json").stat().st_mtime_ns == before
    with pytest.raises(ArtefactError, match=r"duplicates\.jaccard"):
        corpus.run(config_of(inputs, duplicates={"jaccard": 0.5}), made)


def test_on_error_fail_names_the_place(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bad\.jsonl:2"):
        corpus.run(config_of(inputs, inputs=[str(inputs / "bad.jsonl")], truth=None, on_error="fail"), tmp_path / "c")


def test_personal_data_can_be_masked(inputs: Path, tmp_path: Path) -> None:
    corpus.run(config_of(inputs, personal={"action": "mask"}), tmp_path / "c")
    rows = {row["url"]: row for row in tables.rows(tmp_path / "c" / "documents")}
    text = rows[f"{SITE}/mail"]["text"]
    assert "[email]" in text
    assert "jonas" not in text
    assert read_manifest(tmp_path / "c")["metrics"]["masked"] == 1


def test_lineage_of_kept_and_dropped(inputs: Path, made: Path) -> None:
    kept = {row["url"]: row for row in tables.rows(made / "documents")}
    dropped = {row["url"]: row for row in tables.rows(made / "ledger") if row["url"]}
    found = lineage.find(made, kept[f"{SITE}/en3"]["id"])
    assert found["kept"]
    assert found["file"] == str(inputs / "site" / "0.warc.gz")
    data = Path(found["file"]).read_bytes()[found["offset"] :]
    assert data[:2] == b"\x1f\x8b"
    copy = next(row for row in dropped.values() if row["rule"] == "exact")
    lines = "\n".join(lineage.describe(made, copy["id"][:12]))
    assert "duplicates.exact" in lines
    assert copy["survivor"] in lines
    assert "kept in" in lines
    assert "test item eggs" in "\n".join(lineage.describe(made, dropped[f"{SITE}/leak"]["id"]))
    with pytest.raises(ArtefactError, match="no document"):
        lineage.find(made, "f" * 32)
    with pytest.raises(ArtefactError, match="is no corpus"):
        lineage.find(inputs, "ab")


@pytest.fixture(scope="module")
def tokenizer(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from fledge.tokenizer import bpe

    folder = tmp_path_factory.mktemp("tokenizer")
    bpe.train([row["text"] for row in tables.rows(made / "documents")], 512, 64).save(folder)
    return folder


def test_shards_hold_every_document_with_its_origin(made: Path, tokenizer: Path, tmp_path: Path) -> None:
    from fledge.tokenizer.tokenizer import Tokenizer

    config = shards.Config(documents=made, tokenizer=tokenizer, held_out=0.3)
    shards.run(config, tmp_path / "s")
    coder = Tokenizer.load(tokenizer)
    documents = {row["id"]: row for row in tables.rows(made / "documents")}
    train, held_out = TokenShards(tmp_path / "s"), TokenShards(tmp_path / "s", "held_out")
    assert len(train) + len(held_out) == len(documents)
    assert len(train) > 5 < len(held_out)
    seen = set()
    for part in (train, held_out):
        for index in range(len(part)):
            info, tokens = part.info(index), part.tokens(index)
            row = documents[info["id"]]
            seen.add(info["id"])
            assert tokens.dtype == np.int32
            assert tokens[-1] == coder.endoftext
            assert coder.decode(tokens[:-1].tolist()) == row["text"]
            assert part.lengths[index] == len(tokens)
            assert part.byte_lengths[index] == len(row["text"].encode())
            assert [info[key] for key in ("source", "offset", "url", "language")] == [
                row[key] for key in ("source", "offset", "url", "language")
            ]
            assert is_held_out(info["id"], 0.3, 0) == (part is held_out)
    assert seen == documents.keys()
    metrics = read_manifest(tmp_path / "s")["metrics"]
    assert metrics["tokens"] == train.lengths.sum()
    with pytest.raises(IndexError):
        train.tokens(len(train))


def test_shards_repeat_and_leave_out(made: Path, tokenizer: Path, tmp_path: Path) -> None:
    repeat = [{"source": "notes/*", "times": 3}, {"language": "zh", "times": 0}]
    shards.run(shards.Config(documents=made, tokenizer=tokenizer, held_out=0, repeat=repeat), tmp_path / "s")
    train = TokenShards(tmp_path / "s")
    infos = [train.info(index) for index in range(len(train))]
    assert [info["copy"] for info in infos if info["source"] == "notes/mine.md"] == [0, 1, 2]
    assert {info["language"] for info in infos} == {"en"}
    metrics = read_manifest(tmp_path / "s")["metrics"]
    assert metrics["not_written"] == sum(row["language"] == "zh" for row in tables.rows(made / "documents"))


def test_folders_that_are_no_shards_are_refused(tmp_path: Path, tokenizer: Path) -> None:
    with pytest.raises(ArtefactError, match="holds no token shards"):
        TokenShards(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="documents"):
        shards.run(shards.Config(documents=tmp_path / "c", tokenizer=tokenizer), tmp_path / "s")

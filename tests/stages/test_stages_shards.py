"""Shards: of a plain file of documents, beside those of a corpus; the same bytes however they come about."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stages_small import Small

from fledge.core.artefact import read_manifest
from fledge.core.config import build
from fledge.core.errors import DataError
from fledge.core.readers import write_jsonl
from fledge.core.records import Document
from fledge.corpus import tables
from fledge.corpus.writing import shards as format_module
from fledge.corpus.writing.shards import SCHEMA, ShardWriter, TokenShards
from fledge.stages import shards
from fledge.tokenizer import corpus as corpus_module
from fledge.tokenizer import tokenizer as tokenizer_module
from fledge.tokenizer.fast import FastEncoder
from fledge.tokenizer.tokenizer import Tokenizer


def make(small: Small, out: Path, **values: Any) -> dict[str, Any]:
    """Run the stage on the small corpus; returns the metrics."""
    common = {"documents": small.at("corpus"), "tokenizer": small.at("tokenizer"), "held_out": 0.2}
    shards.run(build(shards.Config, {**common, **values}), out)
    metrics: dict[str, Any] = read_manifest(out)["metrics"]
    return metrics


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.arrow"))}


def corpus_of(small: Small, folder: Path, parts: int) -> Path:
    """The small corpus cut into several files, each several times as long."""
    table = pa.concat_tables([pq.read_table(path) for path in tables.parts(Path(small.at("corpus/documents")))])
    (folder / "documents").mkdir(parents=True)
    for number in range(parts):
        pq.write_table(
            pa.concat_tables([table.slice(number)] * 3),
            folder / "documents" / f"part-{number}.parquet",
            row_group_size=50,
        )
    return folder


def test_a_file_of_documents(small: Small, tmp_path: Path) -> None:
    documents = [Document(text=f"row {i} 你好", source=f"mine:{i}", language="en") for i in range(30)]
    write_jsonl(tmp_path / "mine.jsonl", [*documents, Document(text="", source="mine:empty")])
    metrics = make(small, tmp_path / "out", documents=str(tmp_path / "mine.jsonl"), held_out=0)
    made = TokenShards(tmp_path / "out")
    tokenizer = Tokenizer.load(small.at("tokenizer"))
    assert len(made) == 30
    assert (metrics["not_written"], metrics["encoder"]) == (1, "tiktoken")
    for index, document in enumerate(documents):
        assert made.info(index)["id"] == document.id
        assert made.info(index)["source"] == document.source
        assert made.info(index)["offset"] == index
        assert made.info(index)["bytes"] == len(document.text.encode())
        assert made.tokens(index).tolist() == [*tokenizer.encode(document.text), tokenizer.endoftext]


def test_generated_pages_have_the_ids_of_tokenizers(small: Small) -> None:
    rows = {row["id"]: row["text"] for row in tables.rows(Path(small.at("corpus/documents")))}
    tokenizer = Tokenizer.load(small.at("tokenizer"))
    wanted = dict(zip(rows, tokenizer.reference_ids(list(rows.values())), strict=True))
    for split in format_module.SPLITS:
        made = TokenShards(small.at("shards"), split)
        for index in range(len(made)):
            assert made.tokens(index).tolist() == [*wanted.pop(made.info(index)["id"]), tokenizer.endoftext]
    assert wanted == {}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_the_same_bytes_whatever_the_workers_and_batches(
    small: Small, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus_of(small, tmp_path / "c", 2)
    if kind == "jsonl":
        rows = tables.rows(source / "documents")
        source = tmp_path / "rows.jsonl"
        write_jsonl(source, [Document(text=row["text"], source=row["source"]) for row in rows])
    made, metrics = [], []
    for workers, batch in ((1, 1 << 20), (2, 3000), (3, 20_000), (1, 700)):
        monkeypatch.setattr(corpus_module, "BATCH_CHARACTERS", batch)
        out = tmp_path / f"{workers}-{batch}"
        metrics.append(make(small, out, documents=str(source), workers=workers, repeat=[{"source": "*a*", "times": 2}]))
        made.append(files(out))
    assert len(made[0]) == (4 if kind == "parquet" else 2)
    assert all(one == made[0] for one in made)
    assert all(one == metrics[0] for one in metrics)
    assert metrics[0]["train"]["documents"] == len(TokenShards(tmp_path / "1-700"))


def test_an_interrupted_run_goes_on(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the middle of the second file: the first is kept as it is, and the end is that of a run in one go."""
    source = corpus_of(small, tmp_path / "c", 3)
    monkeypatch.setattr(corpus_module, "BATCH_CHARACTERS", 2000)
    make(small, tmp_path / "whole", documents=str(source))
    batches = shards._batches

    def stopped(path: Path) -> Iterator[Any]:
        for number, batch in enumerate(batches(path)):
            if path.stem == "part-1" and number == 9:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(shards, "_batches", stopped)
    with pytest.raises(KeyboardInterrupt):
        make(small, tmp_path / "out", documents=str(source))
    partial = tmp_path / ".out.partial"
    assert sorted(files(partial)) == ["held_out/part-00000.arrow", "train/part-00000.arrow"]
    before = os.stat(partial / "train" / "part-00000.arrow").st_mtime_ns
    monkeypatch.setattr(shards, "_batches", batches)
    assert make(small, tmp_path / "out", documents=str(source)) == read_manifest(tmp_path / "whole")["metrics"]
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert os.stat(tmp_path / "out" / "train" / "part-00000.arrow").st_mtime_ns == before


def test_where_the_encoders_disagree_all_is_encoded_again(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fault that the check at the start did not see (planted: bytes changed places) does not reach the shards."""
    whole = make(small, tmp_path / "whole")
    sound = Tokenizer.load(small.at("tokenizer")).fast
    assert sound is not None
    ranks = {**sound._ranks, **{bytes([i]): sound._ranks[bytes([255 - i])] for i in range(256)}}
    monkeypatch.setattr(tokenizer_module, "make_fast", lambda _: (FastEncoder(ranks, sound._pattern, True), ""))
    metrics = make(small, tmp_path / "out")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    assert metrics["encoder"] == "tokenizers"
    assert "different ids" in metrics["encoder_reason"]
    assert "encoded again" in capsys.readouterr().err
    assert whole["train"] == metrics["train"]


def test_a_tokenizer_that_tiktoken_cannot_follow(small: Small, tmp_path: Path) -> None:
    shutil.copytree(small.at("tokenizer"), tmp_path / "tok")
    path = tmp_path / "tok" / "tokenizer.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    value["normalizer"] = {"type": "NFKC"}
    path.write_text(json.dumps(value), encoding="utf-8")
    metrics = make(small, tmp_path / "out", tokenizer=str(tmp_path / "tok"))
    assert (metrics["encoder"], metrics["encoder_reason"]) == ("tokenizers", "its normaliser is NFKC")


def test_rows_that_are_no_documents_are_named(small: Small, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text('{"text": "a", "source": "b"}\n\n{"text": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"mine\.jsonl:3"):
        make(small, tmp_path / "out", documents=str(tmp_path / "mine.jsonl"))
    (tmp_path / "half.jsonl").write_text('{"text": "a \\ud800", "source": "b"}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"lone surrogate \(U\+D800 at character 2\)"):
        make(small, tmp_path / "half", documents=str(tmp_path / "half.jsonl"))


def test_batches_of_a_shard_are_cut_by_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format_module, "_BATCH_TOKENS", 10)
    lengths = [3, 9, 1, 1, 25, 2, 4, 4, 1]
    tokens = pa.array(range(sum(lengths)), pa.int32()).to_numpy()
    rest = pa.table(
        {
            field.name: [str(i) if field.type == pa.string() else i for i in range(len(lengths))]
            for field in list(SCHEMA)[1:]
        }
    )
    written = []
    for cut in (1, 4, 9):
        with ShardWriter(tmp_path / str(cut) / "train" / "a.arrow") as writer:
            for begin in range(0, len(lengths), cut):
                part = lengths[begin : begin + cut]
                place = sum(lengths[:begin])
                writer.add(tokens[place : place + sum(part)], pa.array(part).to_numpy(), rest.slice(begin, cut))
            assert not (tmp_path / str(cut) / "train" / "a.arrow").exists()
        written.append(files(tmp_path / str(cut)))
    assert written[0] == written[1] == written[2]
    made = TokenShards(tmp_path / "4")
    assert [len(batch) for batch in made._batches] == [2, 3, 3, 1]
    assert made.lengths.tolist() == lengths
    assert made.column("id").to_pylist() == [str(i) for i in range(len(lengths))]
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "b.arrow") as writer:
        raise RuntimeError
    assert list(tmp_path.glob("*b.arrow*")) == []

"""Shards of a plain file of documents, beside those of a corpus."""

from __future__ import annotations

from pathlib import Path

from stages_small import Small

from fledge.core.config import build
from fledge.core.readers import write_jsonl
from fledge.core.records import Document
from fledge.corpus.shards import TokenShards
from fledge.stages import shards
from fledge.tokenizer.tokenizer import Tokenizer


def test_a_file_of_documents(small: Small, tmp_path: Path) -> None:
    documents = [Document(text=f"row {i} 你好", source=f"mine:{i}", language="en") for i in range(30)]
    write_jsonl(tmp_path / "mine.jsonl", documents)
    values = {"documents": str(tmp_path / "mine.jsonl"), "tokenizer": small.at("tokenizer"), "held_out": 0}
    shards.run(build(shards.Config, values), tmp_path / "out")
    made = TokenShards(tmp_path / "out")
    tokenizer = Tokenizer.load(small.at("tokenizer"))
    assert len(made) == 30
    for index, document in enumerate(documents):
        assert made.info(index)["id"] == document.id
        assert made.info(index)["source"] == document.source
        assert made.tokens(index).tolist() == [*tokenizer.encode(document.text), tokenizer.endoftext]

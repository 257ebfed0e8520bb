"""From a token in a training batch to the document, its URL and WARC record; from a dropped page to its rule."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from stages_small import Small

from fledge.core.errors import ConfigError
from fledge.corpus.lineage import find
from fledge.corpus.shards import TokenShards
from fledge.model.hf import load_decoder
from fledge.stages import lineage
from fledge.stages.pretrain import Documents
from fledge.tokenizer.tokenizer import Tokenizer


def test_token_to_warc_record(small: Small) -> None:
    run = small.root / "pretrain"
    config = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["config"]
    source = Documents(TokenShards(small.root / "shards"), config["context"], config["batch_tokens"], config["seed"])
    for _ in range(3):
        examples = source.next(0, {}).examples
    segment = examples[1].segments[0]
    at = len(segment.tokens) - 2  # in the second example; the last token may be the end of the document
    position = examples[0].tokens + at
    told = "\n".join(lineage.describe(run, 3, position))
    document, offset = segment.origin
    assert f"document  {document}, token {offset + at} of it" in told
    row = find(small.root / "corpus", document)
    assert row["url"] in told
    assert ".warc.gz" in told
    # and the token is really there: the document's text, encoded, has it at that place
    ids = Tokenizer.load(run).encode(row["text"])
    assert ids[offset + at] == int(segment.tokens[at])


def test_places_that_are_not_there(small: Small) -> None:
    run = small.root / "pretrain"
    with pytest.raises(ConfigError, match="this run has steps 1 to"):
        list(lineage.describe(run, 10_000, 0))
    with pytest.raises(ConfigError, match="the batch has tokens 0 to"):
        list(lineage.describe(run, 1, 10_000_000))


def test_dropped_page_tells_rule_value_and_threshold(small: Small) -> None:
    corpus = small.root / "corpus"
    rows = [row for path in sorted((corpus / "ledger").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    from fledge.corpus.lineage import describe

    assert rows
    survivors = 0
    for row in rows:
        told = "\n".join(describe(corpus, row["id"]))
        assert f"{row['stage']}.{row['rule']}" in told
        assert "threshold" in told
        if row["survivor"] and row["stage"] == "duplicates":
            survivors += 1
            assert row["survivor"] in told
    assert survivors


def test_models_are_whole_folders(small: Small) -> None:
    """A stage's folder is a complete Hugging Face folder beside its manifest and metrics."""
    run: Path = small.root / "pretrain"
    names = {path.name for path in run.iterdir()}
    assert {
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
        "manifest.json", "metrics.jsonl",
    } <= names  # fmt: skip
    assert "snapshots" not in names
    assert load_decoder(run).config.hidden_size == 64

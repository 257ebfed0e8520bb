"""From a token in a training batch to the document, its URL and WARC record; from a dropped page to its rule."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from stages_small import Small

from fledge.core.errors import ArtefactError, ConfigError
from fledge.corpus.lineage import find
from fledge.corpus.writing.shards import TokenShards
from fledge.model.hf import load_decoder
from fledge.stages import lineage
from fledge.stages.pretrain import Documents
from fledge.tokenizer.chat import encode_chat
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


def test_replayed_dialogues_are_in_the_batch(small: Small, tmp_path: Path) -> None:
    """A batch of DPO is its pairs and then the dialogues that are replayed, as many tokens as were trained on."""
    small.run("dpo", tmp_path / "dpo", epochs=0.4)
    first = (tmp_path / "dpo" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[0]
    tokens = int(json.loads(first)["tokens"])
    with pytest.raises(ConfigError, match=f"the batch has tokens 0 to {tokens - 1}"):
        list(lineage.describe(tmp_path / "dpo", 1, tokens))
    assert small.at("world/preferences.jsonl") in "\n".join(lineage.describe(tmp_path / "dpo", 1, 0))
    title, _, record = lineage.describe(tmp_path / "dpo", 1, tokens - 3)
    found = re.fullmatch(r"  record    (.+):(\d+), token (\d+) of it", record)
    assert found
    assert found[1] == small.at("world/sft.jsonl")
    row = json.loads(Path(found[1]).read_text(encoding="utf-8").splitlines()[int(found[2]) - 1])
    tokenizer = Tokenizer.load(small.root / "pretrain")
    ids = encode_chat(tokenizer, row["messages"], "response", final_newline=False).ids
    assert int(found[3]) == len(ids) - 3
    assert title.endswith(f": {tokenizer.decode(ids[-3:-2], skip_control=False)!r}")


def test_a_run_that_was_moved(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The inputs were named relative to a folder that is no longer the current one, and the run lies elsewhere."""
    old = tmp_path / "old"
    shutil.copytree(small.root, old / "run", ignore=shutil.ignore_patterns(".*"))
    monkeypatch.chdir(old)
    replay = {"data": ["run/world/sft.jsonl"], "batch_size": 3}
    data, model = ["run/world/preferences.jsonl"], "run/pretrain"
    small.run("dpo", Path("run/dpo"), model=model, data=data, replay=replay, epochs=0.4)
    before = list(lineage.describe(Path("run/dpo"), 1, 100))
    monkeypatch.chdir(tmp_path)
    assert list(lineage.describe(Path("old/run/dpo"), 1, 100))[:2] == before[:2]
    old.rename(tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new" / "run")
    assert list(lineage.describe(Path("dpo"), 1, 100))[:2] == before[:2]
    assert ".warc.gz" in "\n".join(lineage.describe(Path("pretrain"), 1, 5))
    with Path("world/preferences.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(ArtefactError, match=r"preferences\.jsonl: changed since .*dpo was made"):
        list(lineage.describe(tmp_path / "new" / "run" / "dpo", 1, 0))
    Path("world/preferences.jsonl").unlink()
    with pytest.raises(ArtefactError, match=r"preferences\.jsonl: there is no such input of .*dpo"):
        list(lineage.describe(Path("dpo"), 1, 0))

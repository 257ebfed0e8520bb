from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from tokenizer_texts import CHINESE, training_texts

from fledge.core.artefact import read_manifest
from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError, DataError
from fledge.stages import tokenizer as stage
from fledge.tokenizer.tokenizer import Tokenizer


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A corpus folder: much English, little Chinese, in two files."""
    rows = [{"id": str(i), "text": text, "language": "en"} for i, text in enumerate(training_texts())]
    rows += [{"id": f"zh{i}", "text": f"{i}。{CHINESE}", "language": "zh"} for i in range(80)]
    folder = tmp_path / "corpus" / "documents"
    folder.mkdir(parents=True)
    for number, part in enumerate((rows[::2], rows[1::2])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(part), folder / f"{number}.parquet")
    return tmp_path / "corpus"


def make(out: Path, **values: Any) -> dict[str, Any]:
    stage.run(build(stage.Config, values), out)
    return dict(read_manifest(out)["metrics"])


def test_the_stage_writes_a_tokenizer_with_its_measures(corpus: Path, tmp_path: Path) -> None:
    metrics = make(tmp_path / "tok", documents=str(corpus), vocab_size=768, default_system="You are Sparrow.")
    found = Tokenizer.load(tmp_path / "tok")
    assert found.vocab_size == metrics["ids"] == metrics["rows"] == 768
    assert found.default_system == "You are Sparrow."
    assert set(metrics["compression"]) == {"en", "zh"}
    assert 0 < metrics["compression"]["zh"]["tokens_per_byte"] < 1
    assert set(metrics["compression_on"].values()) <= {"held-out", "training text"}
    used = sum(metrics["trained_characters"].values())
    assert 0.9 * sum(metrics["available_characters"].values()) < used <= sum(metrics["available_characters"].values())
    before = (tmp_path / "tok" / "tokenizer.json").stat().st_mtime_ns
    make(tmp_path / "tok", documents=str(corpus), vocab_size=768, default_system="You are Sparrow.")
    assert (tmp_path / "tok" / "tokenizer.json").stat().st_mtime_ns == before  # done already: skipped
    with pytest.raises(ArtefactError, match="vocab_size"):
        make(tmp_path / "tok", documents=str(corpus), vocab_size=832, default_system="You are Sparrow.")


def test_the_same_seed_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make(tmp_path / name, documents=str(corpus), vocab_size=512, max_characters=30_000, seed=seed)
    texts = [(tmp_path / name / "tokenizer.json").read_bytes() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]


def test_a_capped_sample_is_shared_between_languages(corpus: Path, tmp_path: Path) -> None:
    metrics = make(tmp_path / "tok", documents=str(corpus), vocab_size=512, max_characters=20_000)
    english, chinese = (metrics["trained_characters"][name] for name in ("en", "zh"))
    assert metrics["available_characters"]["en"] > 60_000
    # whole passages (here of 256 characters or one text) fill the quota of each and never exceed it
    assert 7_000 < english <= 20_000 - chinese
    assert 7_000 < chinese <= 10_000


def test_quotas_fill_up_with_what_small_languages_leave() -> None:
    assert stage.sample_quotas({"en": 1000, "zh": 100, "de": 0}, 500) == {"de": 0, "zh": 100, "en": 400}
    assert stage.sample_quotas({"zh": 1000, "en": 1000}, 501) == {"en": 250, "zh": 251}


def test_passages_are_the_text() -> None:
    text = "".join(f"line {i}\n" for i in range(500)) + "x" * 10_000
    parts = list(stage.cut(text, 1000))
    assert "".join(parts) == text
    assert max(map(len, parts)) == 1000
    assert all(part.endswith("\n") for part in parts[:3])


def test_dialogues_and_plain_text_can_be_added_and_bad_rows_are_counted(corpus: Path, tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "zyzzyva " * 30}, {"role": "assistant", "content": "zyzzyva " * 30}]
    rows = [json.dumps({"messages": messages})] * 3 + ["{broken", json.dumps({"messages": []})]
    (tmp_path / "sft.jsonl").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "notes.txt").write_text("quizzaciously " * 200, encoding="utf-8")
    extra = [str(tmp_path / "sft.jsonl"), str(tmp_path / "notes.txt")]
    metrics = make(tmp_path / "tok", documents=str(corpus), extra=extra, vocab_size=1024)
    assert metrics["skipped"] == 2
    assert "sft.jsonl:4" in metrics["skipped_reasons"][0]
    found = Tokenizer.load(tmp_path / "tok")
    assert len(found.encode(" zyzzyva")) == len(found.encode(" quizzaciously")) == 1


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to train on"):
        build(stage.Config, {})
    with pytest.raises(DataError, match="no such file"):
        make(tmp_path / "tok", documents=str(tmp_path / "missing.jsonl"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"documents/\*\.parquet"):
        make(tmp_path / "tok", documents=str(tmp_path / "empty"))
    (tmp_path / "image.txt").write_bytes(b"\x00\x01\xff")
    with pytest.raises(DataError, match=r"image\.txt"):
        make(tmp_path / "tok1", extra=[str(tmp_path / "image.txt")])
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"other\.jsonl: cannot tell"):
        make(tmp_path / "tok", extra=[str(tmp_path / "other.jsonl")])

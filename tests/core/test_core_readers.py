"""Records in every shape they come in; bad rows by file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from fledge.core.errors import DataError
from fledge.core.readers import read_records, write_jsonl
from fledge.core.records import Conversation, Document, Preference, Task

USER, GOOD, BAD = (
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "good"},
    {"role": "assistant", "content": "bad"},
)
API = {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}


def one(tmp_path: Path, row: Any, kind: type) -> Any:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    return next(iter(read_records(path, kind)))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, GOOD]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "good"}]},
        {"prompt": "q", "response": "good"},
        {"instruction": "q", "input": "", "output": "good"},
    ],
)
def test_conversations(row: dict[str, Any], tmp_path: Path) -> None:
    messages = one(tmp_path, row, Conversation).messages
    assert [m.plain() for m in messages] == [USER, GOOD]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        API,
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
    ],
)
def test_preferences(row: dict[str, Any], tmp_path: Path) -> None:
    record = one(tmp_path, row, Preference)
    assert [m.plain() for m in record.prompt] == [USER]
    assert (record.chosen, record.rejected) == ("good", "bad")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "same", "rejected": "same"}, "same text"),
        ({"prompt": "q", "chosen": "good", "rejected": " "}, "empty"),
        ({"prompt": [USER, GOOD], "chosen": "a", "rejected": "b"}, "must end with a message that an assistant answers"),
        ({"chosen": [USER, GOOD], "rejected": [GOOD, BAD]}, "do not share a prompt"),
        (
            {"input": {"messages": [USER]}, "preferred_output": [GOOD, BAD], "non_preferred_output": [BAD]},
            "exactly one",
        ),
        ({"input": {"messages": [USER]}, "preferred_output": [GOOD]}, "missing"),
        (
            {"input": {"messages": [USER], "x": 1}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
            "unknown key",
        ),
    ],
)
def test_preferences_that_are_none(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=reason) as error:
        one(tmp_path, row, Preference)
    assert "rows.jsonl:1" in str(error.value)


def test_skipped_rows_are_kept_with_their_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages": [\n' + json.dumps({"messages": [USER, GOOD]}) + '\n\n{"x": 1}\n', encoding="utf-8")
    skipped: list[str] = []
    assert len(list(read_records(path, Conversation, "skip", skipped))) == 1
    assert [s.partition(": ")[0] for s in skipped] == [f"{path}:1", f"{path}:4"]


def test_a_truncated_gz_loses_nothing_before_the_cut(tmp_path: Path) -> None:
    rows = [{"messages": [{**USER, "content": f"{i} " * 50}, GOOD]} for i in range(500)]
    whole = gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode())
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    skipped: list[str] = []
    read = list(read_records(path, Conversation, "skip", skipped))
    assert 50 < len(read) < 500
    assert len(skipped) >= 1
    with pytest.raises(DataError, match=r"rows\.jsonl\.gz"):
        list(read_records(path, Conversation))


def test_parquet_and_json(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"messages": [USER, GOOD]}] * 3
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    for name in ("rows.parquet", "rows.json"):
        assert len(list(read_records(tmp_path / name, Conversation))) == 3


def test_write_and_read_again(tmp_path: Path) -> None:
    task = Task.model_validate({"id": "1", "messages": [USER], "verifier": "number", "answer": {"value": 3}})
    assert write_jsonl(tmp_path / "tasks.jsonl", [task]) == 1
    assert list(read_records(tmp_path / "tasks.jsonl", Task)) == [task]


def test_a_document_is_named_by_content_and_source() -> None:
    a = Document(text="x", source="u")
    assert a.id == Document(text="x", source="u", language="en").id
    assert len({a.id, Document(text="y", source="u").id, Document(text="x", source="v").id}) == 3

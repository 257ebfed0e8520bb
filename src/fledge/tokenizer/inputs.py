"""What kind of data a file holds, and the texts in it: for training a tokenizer and for looking at data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from fledge.core.errors import DataError
from fledge.core.packed import open_packed
from fledge.core.readers import open_text, read_records
from fledge.core.records import Conversation, Preference, Record, Task

Kind = Literal["conversation", "preference", "task", "document", "text"]
_RECORDS: dict[str, type[Record]] = {"conversation": Conversation, "preference": Preference, "task": Task}
_TABLES = (".jsonl", ".json", ".parquet")


def stem_of(path: Path) -> str:
    """The name without the suffix of a compression."""
    return path.name.removesuffix(".gz").removesuffix(".zst")


def kind_of(path: Path) -> Kind:
    """By the keys of the first row that is an object; a file of no known table format is plain text."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file")
    if not stem_of(path).endswith(_TABLES):
        return "text"
    row = _first_row(path)
    if row is None:
        raise DataError(f"{path}: holds no row that is a JSON object")
    if "verifier" in row:
        return "task"
    if "chosen" in row or "preferred_output" in row:
        return "preference"
    if "text" in row and "messages" not in row:
        return "document"
    if {"messages", "conversations", "instruction"} & row.keys() or {"prompt", "response"} <= row.keys():
        return "conversation"
    raise DataError(
        f"{path}: cannot tell what its rows are from the keys {sorted(row)}; expected those of documents (text), "
        "conversations (messages), preferences (prompt, chosen, rejected) or tasks (messages, verifier, answer)"
    )


def texts(path: Path, skipped: list[str] | None = None) -> Iterator[tuple[str, str]]:
    """(text, language) of a file: of documents, or the contents of messages. Language is "" where none is given.

    Bad rows are skipped where a list for the reasons is given, else they raise `DataError`.
    """
    kind = kind_of(path)
    if kind == "text":
        yield read_plain(path), ""
    elif kind == "document":
        for row in _documents(path, skipped):
            yield row["text"], row.get("language") or ""
    else:
        for item in read_records(path, _RECORDS[kind], "fail" if skipped is None else "skip", skipped):
            yield from _dialogue_texts(item)


def _dialogue_texts(item: Record) -> Iterator[tuple[str, str]]:
    """With the role before each content, as ChatML has it; languages as the record or its ``meta`` names them."""
    assert isinstance(item, (Conversation, Preference, Task))
    language = (item.language if isinstance(item, Task) else "") or str(item.meta.get("language") or "")
    messages = item.prompt if isinstance(item, Preference) else item.messages
    for message in messages:
        yield f"{message.role}\n{message.content}", language
    if isinstance(item, Preference):
        yield item.chosen, language
        yield item.rejected, language


def read_plain(path: Path) -> str:
    try:
        with open_text(path) as file:
            text = file.read()
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    if "\0" in text:
        raise DataError(f"{path}: holds NUL bytes, so it is binary, not text")
    return text


def _documents(path: Path, skipped: list[str] | None) -> Iterator[dict[str, Any]]:
    for place, row in _rows(path):
        if isinstance(row, dict) and isinstance(row.get("text"), str):
            yield row
            continue
        reason = row if isinstance(row, str) else "expected an object with a string under 'text'"
        if skipped is None:
            raise DataError(f"{place}: {reason}")
        skipped.append(f"{place}: {reason}")


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Rows with their places; one that is no JSON comes as the reason, a string."""
    name = stem_of(path)
    if name.endswith(".parquet"):
        yield from _parquet_rows(path)
    elif name.endswith(".json"):
        try:
            values = json.loads(read_plain(path))
        except ValueError as error:
            raise DataError(f"{path}: not valid JSON: {error}") from None
        for number, row in enumerate(values if isinstance(values, list) else [values]):
            yield f"{path}:item {number}", row
    else:
        with open_packed(path) as file:
            number = 0
            try:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield f"{path}:{number}", _parse(line)
            except (OSError, EOFError) as error:
                yield f"{path}:after line {number}", f"cannot be read further: {error}"


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = [name for name in ("text", "language") if name in file.schema_arrow.names]
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=names or None):
                for row in batch.to_pylist():
                    yield f"{path}:row {number}", row
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file, or a damaged one: {error}") from None


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except ValueError as error:  # UnicodeDecodeError is one
        return f"not valid JSON: {error}"


def _first_row(path: Path) -> dict[str, Any] | None:
    if stem_of(path).endswith(".parquet"):
        import pyarrow
        from pyarrow import parquet

        try:
            return dict.fromkeys(parquet.read_schema(path).names)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a Parquet file: {error}") from None
    return next((row for _, row in _rows(path) if isinstance(row, dict)), None)

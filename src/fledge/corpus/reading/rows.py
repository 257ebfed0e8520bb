"""Records of JSON lines, JSON and Parquet: which of their values is the text, and what goes with it."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from fledge.corpus.pages import Found, Refused
from fledge.corpus.reading.inputs import Part, ReadConfig
from fledge.corpus.reading.lines import read_lines

Item = Found | Refused
_DEEPEST = 8  # levels of records inside records
_KEPT_KEYS = ("id", "title")
_LICENCE_KEYS = ("licence", "license")
_BATCH_BYTES = 16 << 20  # of Parquet at a time, as the file's own statistics have it
_BATCH_ROWS = 1024


def read_json_lines(part: Part, config: ReadConfig) -> Iterator[Item]:
    """Offsets are the lines' in bytes; of records inside a line, one by one from there."""
    for line in read_lines(part.path, config.max_record_bytes):
        place = f"{part.path}:{line.number}"
        if line.problem:
            yield Refused(part.label, line.offset, "truncated", f"{place}: breaks off: {line.problem}", error=True)
            return
        if line.data is None:
            detail = f"{place}: a line of {line.length} bytes (read.max_record_bytes is {config.max_record_bytes})"
            yield Refused(part.label, line.offset, "too_large", detail, error=True)
            continue
        if not line.data.strip():
            continue
        try:
            row = json.loads(line.data.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
        except UnicodeDecodeError as error:
            yield Refused(part.label, line.offset, "encoding", f"{place}: not UTF-8: {error}", error=True)
            continue
        except (ValueError, RecursionError) as error:
            yield Refused(part.label, line.offset, "malformed_line", f"{place}: not valid JSON: {error}", error=True)
            continue
        yield from _rows(part, config, line.offset, place, row, {"line": line.number})


def read_json(part: Part, config: ReadConfig, data: bytes) -> Iterator[Item] | None:
    """The records of a JSON file, or None where it holds no pages.

    The offset of a record is its number in the file, records inside records counted.
    """
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        return iter([Refused(part.label, 0, "malformed", f"{part.path}: not valid JSON: {error}", error=True)])
    if isinstance(rows, dict) and set(config.text_keys) & rows.keys():
        rows = [rows]
    if not isinstance(rows, list) or not any(isinstance(row, dict) for row in rows):
        return None
    return _listed(part, config, rows)


def _listed(part: Part, config: ReadConfig, rows: list[Any]) -> Iterator[Item]:
    count = 0
    for number, row in enumerate(rows):
        for item in _rows(part, config, count, f"{part.path}:item {number}", row, {}):
            yield item
            count += 1


def _rows(
    part: Part, config: ReadConfig, offset: int, place: str, row: Any, meta: dict[str, Any], depth: int = 0
) -> Iterator[Item]:
    """The records of a row: itself, or those that it holds under its text key."""
    key = next((key for key in config.text_keys if key in row), None) if isinstance(row, dict) else None
    inner = row[key] if key is not None else None
    if not (isinstance(inner, list) and any(isinstance(item, dict) for item in inner)) or depth == _DEEPEST:
        yield _row(part, config, offset, place, row, meta)
        return
    for number, item in enumerate(inner):
        for found in _rows(part, config, offset, f"{place}.{key}.{number}", item, dict(meta), depth + 1):
            yield found
            offset += 1


def _row(part: Part, config: ReadConfig, offset: int, place: str, row: Any, meta: dict[str, Any]) -> Item:
    if not isinstance(row, dict):
        return Refused(part.label, offset, "not_an_object", f"{place}: {type(row).__name__}, not an object", error=True)
    text = next((row[key] for key in config.text_keys if key in row), None)
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        text = "\n".join(text)
    if not isinstance(text, str):
        keys = ", ".join(sorted(map(str, row))[:8])
        detail = f"{place}: no text under the keys {list(config.text_keys)} (read.text_keys); keys: {keys}"
        return Refused(part.label, offset, "no_text", detail, error=True)
    headings = [row[key] for key in config.heading_keys if isinstance(row.get(key), str) and row[key].strip()]
    text = "\n".join([*headings, "", text]) if headings else text
    url = row.get(config.url_key)
    for key in _KEPT_KEYS:
        if isinstance(row.get(key), str | int):
            meta[key] = row[key]
    licence = next((row[key] for key in _LICENCE_KEYS if isinstance(row.get(key), str) and row[key]), "")
    if licence:
        meta["licence"] = licence
    text = text.encode("utf-8", "replace").decode("utf-8")  # JSON may hold half a surrogate pair
    return Found(part.label, offset, "text", text, url=url if isinstance(url, str) else "", meta=meta)


def read_parquet(part: Part, config: ReadConfig) -> Iterator[Item]:
    """Row group by row group, of the columns that are wanted; a damaged group costs itself. Offsets are rows."""
    import pyarrow
    from pyarrow import parquet

    part.path.open("rb").close()  # what cannot be opened is another fault than what is no Parquet
    try:
        file = parquet.ParquetFile(part.path)
    except (pyarrow.ArrowException, OSError) as error:
        yield Refused(part.label, 0, "damaged", f"{part.path}: not a Parquet file: {error}", error=True)
        return
    with file:
        names = file.schema_arrow.names
        if not set(names).intersection(config.text_keys):
            columns = ", ".join(names[:12])
            detail = f"{part.path}: no column {list(config.text_keys)} (read.text_keys); columns: {columns}"
            yield Refused(part.label, 0, "no_text", detail, error=True)
            return
        keys = (*config.text_keys, *config.heading_keys, config.url_key, *_KEPT_KEYS, *_LICENCE_KEYS)
        wanted = [name for name in dict.fromkeys(keys) if name in names]
        begin = 0
        for group in range(file.num_row_groups):
            yield from _group(part, config, file, group, wanted, begin)
            begin += file.metadata.row_group(group).num_rows


def _group(part: Part, config: ReadConfig, file: Any, group: int, wanted: list[str], begin: int) -> Iterator[Item]:
    import pyarrow

    facts = file.metadata.row_group(group)
    number = begin
    size = max(1, min(_BATCH_ROWS, _BATCH_BYTES * facts.num_rows // max(1, facts.total_byte_size)))
    try:
        for batch in file.iter_batches(batch_size=size, row_groups=[group], columns=wanted):
            for row in range(batch.num_rows):
                yield _parquet_row(part, config, batch, row, number)
                number += 1
    except (pyarrow.ArrowException, OSError) as error:
        lost = begin + facts.num_rows - number
        detail = f"{part.path}: rows {number} to {begin + facts.num_rows - 1} ({lost}) cannot be read: {error}"
        yield Refused(part.label, number, "damaged", detail, error=True)


def _parquet_row(part: Part, config: ReadConfig, batch: Any, row: int, number: int) -> Item:
    place = f"{part.path}:row {number}"
    for name in config.text_keys:
        size = _bytes_of(batch, name, row)
        if size > config.max_record_bytes:
            detail = f"{place}: {size} bytes (read.max_record_bytes is {config.max_record_bytes})"
            return Refused(part.label, number, "too_large", detail, error=True)
    try:
        values = {name: batch.column(name)[row].as_py() for name in batch.schema.names}
    except UnicodeDecodeError as error:
        return Refused(part.label, number, "encoding", f"{place}: not UTF-8: {error}", error=True)
    return _row(part, config, number, place, values, {})


def _bytes_of(batch: Any, name: str, row: int) -> int:
    """Length of a text before it becomes a string of Python's; 0 of what is no text."""
    import pyarrow

    if name not in batch.schema.names or not pyarrow.types.is_string(batch.schema.field(name).type):
        return 0
    buffer = batch.column(name)[row].as_buffer()
    return 0 if buffer is None else int(buffer.size)

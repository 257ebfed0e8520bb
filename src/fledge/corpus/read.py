"""Readers: files to what was found in them. Nothing good is lost to a bad neighbour.

A malformed line, a damaged record, a file that is not what its name says: each becomes one `Refused` that names the
place, and reading goes on behind it. Every record keeps its file and offset.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from fledge.core.config import Config
from fledge.core.packed import open_packed
from fledge.corpus.extract import decode, looks_binary
from fledge.corpus.inputs import Part
from fledge.corpus.pages import Found, Kind, Refused


class ReadConfig(Config):
    """How inputs are read."""

    text_keys: tuple[str, ...] = Field(
        ("text", "content", "paragraphs"),
        min_length=1,
        description="keys of JSON objects, columns of Parquet, that hold the text (the first found): a text, a list of "
        "lines, or a list of objects, which are records themselves",
    )
    heading_keys: tuple[str, ...] = Field(
        (), description="keys whose texts stand above the text, a line each, as far as a record has them"
    )
    url_key: str = "url"
    stdlib_characters: int = Field(3_000_000, gt=0, description="cap of the input python:stdlib, in characters")
    split_characters: int = Field(20_000, ge=1_000, description="plain text is cut into pages near this length")
    most_per_shard: int = Field(0, ge=0, description="read only so many records of each shard, as a sample; 0: all")
    max_record_bytes: int = Field(64 << 20, gt=0, description="larger records are refused")


Item = Found | Refused


def read_part(part: Part, config: ReadConfig) -> Iterator[Item]:
    """Everything in one file. An unexpected failure of the file itself ends the file, not the run."""
    readers: dict[str, Callable[[Part, ReadConfig], Iterator[Item]]] = {
        "warc": _warc, "jsonl": _jsonl, "parquet": _parquet, "html": _html, "text": _text, "code": _text,
        "json": _json, "stdlib": _stdlib, "unknown": _unknown, "unsupported": _unsupported,
    }  # fmt: skip
    try:
        yield from readers[part.format](part, config)
    except OSError as error:
        yield Refused(part.label, 0, "file", f"{part.path}: cannot be read: {error}", error=True)


def _warc(part: Part, config: ReadConfig) -> Iterator[Item]:
    from fledge.corpus.warc import read_warc

    return read_warc(part, config.max_record_bytes)


def _stdlib(part: Part, config: ReadConfig) -> Iterator[Item]:
    from fledge.corpus.stdlib import read_stdlib

    return read_stdlib(part.label, part.path)


def _unsupported(part: Part, config: ReadConfig) -> Iterator[Item]:
    yield Refused(part.label, 0, "unsupported", f"{part.path}: a data format that holds no pages", error=False)


def _unknown(part: Part, config: ReadConfig) -> Iterator[Item]:
    """A name that says nothing: text is read as text, the rest goes to the ledger."""
    with part.path.open("rb") as file:
        head = file.read(8192)
    if looks_binary(head):
        yield Refused(part.label, 0, "binary", f"{part.path}: not a text file", error=False)
    else:
        yield from _text(part, config)


def _html(part: Part, config: ReadConfig) -> Iterator[Item]:
    data, problem = _whole(part.path, config.max_record_bytes)
    if problem:
        yield Refused(part.label, len(data), *problem, error=True)
    elif looks_binary(data[:8192]):
        yield Refused(part.label, 0, "binary", f"{part.path}: bytes that are not HTML", error=True)
    else:
        yield Found(part.label, 0, "html", data, url=part.label)


def _text(part: Part, config: ReadConfig) -> Iterator[Item]:
    """Plain text or source. Of a file that breaks off, the whole lines before the break are kept."""
    data, problem = _whole(part.path, config.max_record_bytes)
    if problem:
        yield Refused(part.label, len(data), *problem, error=True)
        data = data[: data.rfind(b"\n") + 1]
        if not data:
            return
    if looks_binary(data[:8192]):
        yield Refused(part.label, 0, "binary", f"{part.path}: bytes that are not text", error=True)
        return
    text, encoding = decode(data)
    if text is None:
        yield Refused(part.label, 0, "encoding", f"{part.path}: no encoding fits (best guess {encoding})", error=True)
        return
    kind: Kind = "code" if part.format == "code" else "text"
    meta = {} if encoding == "utf-8" else {"encoding": encoding}
    for offset, piece in split_text(text, config.split_characters):
        yield Found(part.label, offset, kind, piece, url=part.label, meta=dict(meta))


def split_text(text: str, target: int) -> Iterator[tuple[int, str]]:
    """Cut a long text at blank lines, else at line ends, into pieces near ``target``: (character offset, piece)."""
    if len(text) <= target + target // 2:
        yield 0, text
        return
    begin = 0
    while len(text) - begin > target + target // 2:
        end = -1
        for mark in ("\n\n", "\n", " "):
            end = text.find(mark, begin + target, begin + target + target // 2)
            if end >= 0:
                break
        end = begin + target if end < 0 else end + 1
        yield begin, text[begin:end]
        begin = end
    yield begin, text[begin:]


def _whole(path: Path, limit: int) -> tuple[bytes, tuple[str, str] | None]:
    """A whole file, unpacked, or as much of it as can be, with (rule, what is wrong)."""
    pieces: list[bytes] = []
    size = 0
    try:
        with open_packed(path) as file:
            while piece := file.read1(64 << 10):
                size += len(piece)
                if size > limit:
                    return b"", ("too_large", f"{path}: more than {limit} bytes (read.max_record_bytes)")
                pieces.append(piece)
    except _BROKEN as error:
        return b"".join(pieces), ("truncated", f"{path}: breaks off after {size} bytes: {error}")
    return b"".join(pieces), None


_BROKEN = (EOFError, OSError)


def _lines(path: Path) -> Iterator[tuple[int, int, bytes, str]]:
    """(line number, byte offset, line, ""), and at a break (number, offset, what was left, the error)."""
    number = offset = 0
    rest = b""
    with open_packed(path) as file:
        while True:
            try:
                piece = file.read1(64 << 10)
            except _BROKEN as error:
                yield number + 1, offset, rest, str(error)
                return
            if not piece:
                break
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                number += 1
                yield number, offset, line, ""
                offset += len(line) + 1
    if rest:
        yield number + 1, offset, rest, ""


def _jsonl(part: Part, config: ReadConfig) -> Iterator[Item]:
    for number, offset, line, problem in _lines(part.path):
        place = f"{part.path}:{number}"
        if problem:
            yield Refused(part.label, offset, "truncated", f"{place}: breaks off: {problem}", error=True)
            return
        if not line.strip():
            continue
        if len(line) > config.max_record_bytes:
            yield Refused(part.label, offset, "too_large", f"{place}: a line of {len(line)} bytes", error=True)
            continue
        try:
            row = json.loads(line.removeprefix(codecs.BOM_UTF8).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            yield Refused(part.label, offset, "malformed_line", f"{place}: not valid JSON: {error}", error=True)
            continue
        yield from _rows(part, config, offset, place, row, {"line": number})


def _json(part: Part, config: ReadConfig) -> Iterator[Item]:
    """A JSON file that is an object with a text, or a list of such; anything else holds no pages.

    The offset of a record is its number in the file, records inside records counted.
    """
    data, problem = _whole(part.path, config.max_record_bytes)
    if problem:
        yield Refused(part.label, len(data), *problem, error=True)
        return
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        yield Refused(part.label, 0, "malformed", f"{part.path}: not valid JSON: {error}", error=True)
        return
    if isinstance(rows, dict) and set(config.text_keys) & rows.keys():
        rows = [rows]
    if not isinstance(rows, list) or not any(isinstance(row, dict) for row in rows):
        yield from _unsupported(part, config)
        return
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


_DEEPEST = 8  # levels of records inside records


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
    for key in ("id", "title"):
        if isinstance(row.get(key), str | int):
            meta[key] = row[key]
    text = text.encode("utf-8", "replace").decode("utf-8")  # JSON may hold half a surrogate pair
    return Found(part.label, offset, "text", text, url=url if isinstance(url, str) else "", meta=meta)


def _parquet(part: Part, config: ReadConfig) -> Iterator[Item]:
    import pyarrow
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(part.path)
    except (pyarrow.ArrowException, OSError) as error:
        yield Refused(part.label, 0, "damaged", f"{part.path}: not a Parquet file: {error}", error=True)
        return
    names = file.schema_arrow.names
    if not set(names).intersection(config.text_keys):
        columns = ", ".join(names[:12])
        detail = f"{part.path}: no column {list(config.text_keys)} (read.text_keys); columns: {columns}"
        yield Refused(part.label, 0, "no_text", detail, error=True)
        return
    keys = (*config.text_keys, *config.heading_keys, config.url_key, "id", "title")
    wanted = [name for name in dict.fromkeys(keys) if name in names]
    number = 0
    try:
        for batch in file.iter_batches(batch_size=1024, columns=wanted):
            for row in batch.to_pylist():
                yield _row(part, config, number, f"{part.path}:row {number}", row, {})
                number += 1
    except (pyarrow.ArrowException, OSError) as error:
        yield Refused(part.label, number, "damaged", f"{part.path}: after row {number}: {error}", error=True)

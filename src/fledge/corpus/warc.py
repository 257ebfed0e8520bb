"""WARC files, record by record, with fastwarc. Damage costs the damaged record, not the file.

Every record counts as read; one that is not an HTML response (or plain text of a WET file) is refused with that
reason. After damage the reader looks for the next record's beginning and goes on there.
"""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Iterator
from typing import Any

from fledge.corpus.inputs import Part
from fledge.corpus.pages import Found, Refused

_HTML = {"text/html", "application/xhtml+xml", "application/xhtml"}
_GZIP = b"\x1f\x8b\x08"
_START = b"WARC/"


def read_warc(part: Part, limit: int) -> Iterator[Found | Refused]:
    """All records of a file. ``offset`` is the record's byte offset in the file (of its gzip member, if packed)."""
    from fastwarc.warc import ArchiveIterator

    size = part.path.stat().st_size
    if size == 0:
        yield Refused(part.label, 0, "damaged", f"{part.path}: the file is empty", error=True)
        return
    with part.path.open("rb") as file:
        begin = 0  # where the present attempt started in the file
        while begin < size:
            file.seek(begin)
            last = begin
            try:
                for record in ArchiveIterator(file, parse_http=False):
                    last = begin + record.stream_pos
                    yield _record(part, last, record, limit)
                return
            except OSError as error:
                yield Refused(part.label, last, "damaged", f"{part.path}: after offset {last}: {error}", error=True)
            following = _next_record(part, last + 1)
            if following < 0:
                return
            begin = following


def _record(part: Part, offset: int, record: Any, limit: int) -> Found | Refused:
    url = (record.headers.get("WARC-Target-URI") or "").strip("<>")
    place = f"{part.path}: record at offset {offset}"
    kind = str(record.record_type)

    def refuse(rule: str, detail: str, error: bool = False) -> Refused:
        return Refused(part.label, offset, rule, f"{place}: {detail}", error, url)

    declared = int(record.headers.get("Content-Length") or 0)
    if kind not in ("response", "resource", "conversion"):
        return refuse("record_type", f"a {kind} record, not a page")
    if declared > limit:
        return refuse("too_large", f"{declared} bytes", error=True)
    record.freeze()
    if record.content_length < declared:
        return refuse("truncated", f"{record.content_length} of {declared} bytes", error=True)
    charset = ""
    status = 200
    if kind == "response" and record.is_http:
        record.parse_http(auto_decode="all")
        status = record.http_headers.status_code or 0
        content_type = record.http_content_type or ""
        charset = record.http_charset or ""
    else:
        content_type, _, rest = (record.headers.get("Content-Type") or "").partition(";")
        charset = rest.partition("charset=")[2].strip(" \"'")
    content_type = content_type.strip().lower()
    if status != 200:
        return refuse("status", f"HTTP status {status}")
    if kind == "conversion" and content_type == "text/plain":
        return Found(part.label, offset, "text", record.reader.read().decode("utf-8", "replace"), url=url)
    body = record.reader.read()
    if content_type not in _HTML and not (content_type == "" and body[:256].lstrip().lower().startswith(b"<!doctype")):
        return refuse("content_type", f"content type {content_type or 'missing'!r}, not HTML")
    date = record.headers.get("WARC-Date")
    return Found(part.label, offset, "html", body, url=url, charset=charset, meta={"date": date} if date else {})


def _next_record(part: Part, begin: int) -> int:
    """Offset of the next thing that begins like a record (packed or plain), or -1."""
    with part.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        packed = data[:3] == _GZIP
        position = begin
        while True:
            position = data.find(_GZIP if packed else b"\n" + _START, position)
            if position < 0:
                return -1
            if not packed:
                return position + 1
            try:
                if zlib.decompressobj(31).decompress(data[position : position + 512], 16).startswith(_START):
                    return position
            except zlib.error:
                pass
            position += 1

"""WARC, WAT and WET files, record by record, with fastwarc. Damage costs the damaged record, not the file.

Every record counts as read; one that is not an HTML response (or the text of a WET file) is refused with that reason.
After damage the reader looks for the next record's beginning and goes on there.
"""

from __future__ import annotations

import io
import mmap
import zlib
from collections.abc import Iterator
from typing import Any, Literal

from fledge.core.packed import open_packed
from fledge.corpus.pages import Found, Refused
from fledge.corpus.reading.charset import decode, looks_binary
from fledge.corpus.reading.inputs import Part
from fledge.corpus.reading.panic import is_panic

_HTML = {"text/html", "application/xhtml+xml", "application/xhtml"}
_OPENINGS = (b"<!doctype html", b"<html", b"<?xml")  # of a page whose content type is not said
_GZIP, _ZSTD = b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"
_START = b"WARC/"
_PIECE = 64 << 10
_HTTP = (
    b"WARC/1.0\r\nWARC-Type: response\r\nContent-Type: application/http; msgtype=response\r\nContent-Length: %d\r\n\r\n"
)
# Crawlers that unpack what they store often leave the headers as they were: then one of the later ones reads it.
_DECODINGS: tuple[Literal["all", "content", "transfer", "none"], ...] = ("all", "content", "transfer", "none")


def read_warc(part: Part, limit: int) -> Iterator[Found | Refused]:
    """All records of a file. ``offset`` is the record's byte offset in the file, of its member if packed; where the
    file is packed as a whole, in the unpacked bytes."""
    size = part.path.stat().st_size
    if size == 0:
        yield Refused(part.label, 0, "damaged", f"{part.path}: the file is empty", error=True)
        return
    with part.path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        magic = _magic(part, data)
        if magic and not _has_member(data, magic):
            yield from _packed_whole(part, limit)
            return
        begin = 0  # where the present attempt started in the file
        while 0 <= begin < size:
            file.seek(begin)
            records = _Records(part, file, begin, limit)
            try:
                yield from records
                return
            except OSError as error:
                detail = f"{part.path}: after offset {records.last}: {error}"
                yield Refused(part.label, records.last, "damaged", detail, error=True)
            begin = _next_record(data, magic, records.last + 1)


def _packed_whole(part: Part, limit: int) -> Iterator[Found | Refused]:
    """A file that is one packed member: there is no way to go on behind damage."""
    with open_packed(part.path) as stream:
        records = _Records(part, _Forward(stream), 0, limit)
        try:
            yield from records
        except (OSError, EOFError) as error:
            detail = f"{part.path}: after unpacked offset {records.last}, and nothing behind it can be read: {error}"
            yield Refused(part.label, records.last, "damaged", detail, error=True)


class _Records:
    """The records of a stream that begins at ``begin``. ``last`` is the offset of the one that is being read."""

    def __init__(self, part: Part, stream: Any, begin: int, limit: int) -> None:
        self.part, self.stream, self.begin, self.limit = part, stream, begin, limit
        self.last = begin

    def __iter__(self) -> Iterator[Found | Refused]:
        from fastwarc.warc import ArchiveIterator

        try:
            for record in ArchiveIterator(self.stream, parse_http=False):
                self.last = self.begin + record.stream_pos
                yield _record(self.part, self.last, record, self.limit)
        except BaseException as error:
            if is_panic(error):
                raise OSError(f"the parser gave up: {error}") from None
            raise


class _Forward:
    """A stream that is read once, and says where it is in the way that fastwarc asks: ``seek(0, 1)``."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._stream, self._at = stream, 0

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read1(size)
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        if (offset, whence) != (0, 1):
            raise io.UnsupportedOperation("a packed stream goes forward only")
        return self._at

    def tell(self) -> int:
        return self._at


def _record(part: Part, offset: int, record: Any, limit: int) -> Found | Refused:
    headers = record.headers
    url = (headers.get("WARC-Target-URI") or "").strip("<>")
    kind = str(record.record_type)

    def refuse(rule: str, detail: str, error: bool = False) -> Refused:
        return Refused(part.label, offset, rule, f"{part.path}: record at offset {offset}: {detail}", error, url)

    if kind not in ("response", "resource", "conversion"):
        return refuse("record_type", f"a {kind} record, not a page")
    declared = headers.get("Content-Length") or "0"
    if not declared.isdecimal():
        return refuse("damaged", f"Content-Length is {declared[:40]!r}", error=True)
    if int(declared) > limit:
        return refuse("too_large", f"{declared} bytes (read.max_record_bytes is {limit})", error=True)
    record.freeze()
    if record.content_length < int(declared):
        return refuse("truncated", f"{record.content_length} of {declared} bytes", error=True)
    names = (("date", "WARC-Date"), ("truncated", "WARC-Truncated"))
    meta: dict[str, Any] = {name: value for name, key in names if (value := headers.get(key))}
    body = record.reader.read()
    if kind == "response" and record.is_http:
        http, body, problem = _unpacked(body, limit)
        status = http.http_headers.status_code if http is not None and http.http_headers else None
        if status is None:
            return refuse("http", "no HTTP response that can be read", error=True)
        if status != 200:
            return refuse("status", f"HTTP status {status}")
        content_type, charset = http.http_content_type or "", http.http_charset or ""
    else:
        content_type, _, rest = (headers.get("Content-Type") or "").partition(";")
        charset, problem = rest.partition("charset=")[2].strip(" \"'"), ""
    content_type = content_type.strip().lower()
    if kind == "conversion" and content_type == "text/plain":
        text, _ = decode(body, charset)
        if text is None:
            return refuse("encoding", "text in no encoding that fits", error=True)
        return Found(part.label, offset, "text", text, url=url, meta=meta)
    if content_type not in _HTML and not (content_type == "" and body[:256].lstrip().lower().startswith(_OPENINGS)):
        return refuse("content_type", f"content type {content_type or 'missing'!r}, not HTML")
    if problem == "too_large":
        return refuse("too_large", f"more than {limit} bytes unpacked (read.max_record_bytes)", error=True)
    if problem and "truncated" not in meta:
        return refuse("http_body", problem, error=True)
    return Found(part.label, offset, "html", body, url=url, charset=charset, meta=meta)


def _unpacked(block: bytes, limit: int) -> tuple[Any, bytes, str]:
    """(the response with its headers, body, what is wrong with it): the first of the decodings that works.

    A body whose packing breaks off is given as far as it goes, and one beyond the limit not at all.
    """
    from fastwarc.warc import WarcRecord

    first: tuple[Any, bytes, str] | None = None  # whose headers could be read
    wrong = ""
    for how in _DECODINGS:
        http, body, problem = None, bytearray(), ""
        try:
            http = WarcRecord.from_bytes(_HTTP % len(block) + block)
            http.parse_http(auto_decode=how)
            while len(body) <= limit and (piece := http.reader.read(_PIECE)):
                body += piece
        except (OSError, ValueError) as error:
            problem = f"the body cannot be unpacked: {error}"
        if len(body) > limit:
            return http, b"", "too_large"
        if not problem and (how == "all" or not looks_binary(bytes(body[:8192]))):
            return http, bytes(body), ""
        wrong = wrong or problem
        if first is None and http is not None and http.http_headers:
            first = http, bytes(body), wrong
    return first or (None, b"", wrong)


def _magic(part: Part, data: Any) -> bytes:
    """What members begin with, or nothing for a plain file; where the file begins with nonsense, its name says."""
    for magic, suffix in ((_GZIP, ".gz"), (_ZSTD, ".zst")):
        if data[: len(magic)] == magic or (part.path.suffix == suffix and data[: len(_START)] != _START):
            return magic
    return b""


def _has_member(data: Any, magic: bytes) -> bool:
    """Whether a second record begins a member of its own, or the first is all there is."""
    return _next_record(data, magic, 1) >= 0 or _holds_one(data, magic)


def _holds_one(data: Any, magic: bytes) -> bool:
    """Whether the only member holds a single record, as far as its first megabyte shows."""
    unpacker = _unpacker(magic)
    head = b""
    place = 0
    try:
        while len(head) < 1 << 20 and place < len(data):
            head += unpacker.decompress(data[place : place + 1024])
            place += 1024
    except Exception:
        return True  # damaged: the plain way says where
    return b"\r\n\r\n" + _START not in head


def _unpacker(magic: bytes) -> Any:
    if magic == _GZIP:
        return zlib.decompressobj(31)
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def _next_record(data: Any, magic: bytes, begin: int) -> int:
    """Offset of the next thing that begins like a record (packed or plain), or -1."""
    position = begin
    while True:
        position = data.find(magic or b"\n" + _START, position)
        if position < 0:
            return -1
        if not magic:
            return position + 1
        if _begins_record(data[position : position + 1024], magic):
            return position
        position += 1


def _begins_record(packed: bytes, magic: bytes) -> bool:
    """Three bytes of gzip's occur by chance, four of zstd's hardly."""
    if magic != _GZIP:
        return True
    try:
        return zlib.decompressobj(31).decompress(packed, 16).startswith(_START)
    except zlib.error:
        return False

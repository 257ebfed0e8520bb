"""Readers: files to what was found in them. Nothing good is lost to a bad neighbour.

A malformed line, a damaged record, a file that is not what its name says: each becomes one `Refused` that names the
place, and reading goes on behind it. Every record keeps its file and offset. A file is held whole only where it is
one document (HTML, an object of JSON), and then no more of it than ``read.max_record_bytes``.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fledge.core.packed import open_packed
from fledge.corpus.pages import Found, Kind, Refused
from fledge.corpus.reading import licences
from fledge.corpus.reading.charset import declared_by_mark, decode, looks_binary
from fledge.corpus.reading.inputs import Part, ReadConfig
from fledge.corpus.reading.lines import BROKEN, read_lines
from fledge.corpus.reading.panic import is_panic

_HEAD = 4 << 20  # bytes of a text that decide about its encoding; a shorter text is decoded at once
_LOOK = 8192
Item = Found | Refused


def read_part(part: Part, config: ReadConfig) -> Iterator[Item]:
    """Everything in one file. A failure of the file itself, or of a reader at it, ends the file, not the run."""
    readers: dict[str, Callable[[Part, ReadConfig], Iterator[Item]]] = {
        "warc": _warc, "jsonl": _jsonl, "parquet": _parquet, "html": _html, "text": _text, "code": _text,
        "json": _json, "stdlib": _stdlib, "unknown": _unknown, "unsupported": _unsupported,
    }  # fmt: skip
    try:
        for item in readers[part.format](part, config):
            if isinstance(item, Found):
                yield _licensed(item, part, config)
            else:
                yield item
    except OSError as error:
        yield Refused(part.label, 0, "file", f"{part.path}: cannot be read: {error}", error=True)
    except BaseException as error:  # a parser that fails in a way of its own must not cost the other files
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        detail = f"{part.path}: the reader failed: {type(error).__name__}: {error}"
        yield Refused(part.label, 0, "exception", detail, error=True)


def _licensed(item: Found, part: Part, config: ReadConfig) -> Item:
    """The record with its licence: its own word, else that of the nearest licence file, else what is configured."""
    own = licences.own_licence(item.content) if item.kind == "code" and isinstance(item.content, str) else ""
    told = own or part.licence or config.licence_of.get(part.label.partition("/")[0], "")
    if told:
        item.meta.setdefault("licence", told)
    licence = item.meta.get("licence", "")
    if item.kind == "code" and config.licences and not licences.allowed(licence, config.licences):
        detail = f"{part.path}: licence {licence or 'not known'}, and read.licences has {', '.join(config.licences)}"
        return Refused(item.source, item.offset, "licence", detail, error=False, url=item.url)
    return item


def _warc(part: Part, config: ReadConfig) -> Iterator[Item]:
    from fledge.corpus.reading.warc import read_warc

    return read_warc(part, config.max_record_bytes)


def _stdlib(part: Part, config: ReadConfig) -> Iterator[Item]:
    from fledge.corpus.reading.stdlib import read_stdlib

    return read_stdlib(part.label, part.path)


def _jsonl(part: Part, config: ReadConfig) -> Iterator[Item]:
    from fledge.corpus.reading.rows import read_json_lines

    return read_json_lines(part, config)


def _parquet(part: Part, config: ReadConfig) -> Iterator[Item]:
    from fledge.corpus.reading.rows import read_parquet

    return read_parquet(part, config)


def _json(part: Part, config: ReadConfig) -> Iterator[Item]:
    """A JSON file that is an object with a text, or a list of such; anything else holds no pages."""
    from fledge.corpus.reading.rows import read_json

    data, problem = _whole(part.path, config.max_record_bytes)
    if problem:
        yield Refused(part.label, len(data), *problem, error=True)
        return
    items = read_json(part, config, data)
    yield from _unsupported(part, config) if items is None else items


def _unsupported(part: Part, config: ReadConfig) -> Iterator[Item]:
    yield Refused(part.label, 0, "unsupported", f"{part.path}: a data format that holds no pages", error=False)


def _unknown(part: Part, config: ReadConfig) -> Iterator[Item]:
    """A name that says nothing: text is read as text, the rest goes to the ledger."""
    with part.path.open("rb") as file:
        head = file.read(_LOOK)
    if looks_binary(head):
        yield Refused(part.label, 0, "binary", f"{part.path}: not a text file", error=False)
    else:
        yield from _text(part, config)


def _html(part: Part, config: ReadConfig) -> Iterator[Item]:
    data, problem = _whole(part.path, config.max_record_bytes)
    if problem:
        yield Refused(part.label, len(data), *problem, error=True)
    elif looks_binary(data[:_LOOK]):
        yield Refused(part.label, 0, "binary", f"{part.path}: bytes that are not HTML", error=True)
    else:
        yield Found(part.label, 0, "html", data, url=part.label)


def _text(part: Part, config: ReadConfig) -> Iterator[Item]:
    """Plain text or source, in pages. Of a file that breaks off, the whole lines before the break are kept."""
    reader = _TextReader(part, config.max_record_bytes)
    kind: Kind = "code" if part.format == "code" else "text"
    for offset, piece in split_text(reader.decoded(), config.split_characters):
        meta = {} if reader.encoding == "utf-8" else {"encoding": reader.encoding}
        yield Found(part.label, offset, kind, piece, url=part.label, meta=meta)
    yield from reader.refused


class _TextReader:
    """The text of a file, a few megabytes at a time. ``encoding`` and ``refused`` grow while it is read."""

    def __init__(self, part: Part, limit: int) -> None:
        self.part, self.limit = part, limit
        self.encoding = "utf-8"
        self.refused: list[Refused] = []

    def decoded(self) -> Iterator[str]:
        """Pieces in order; the first bytes decide about the encoding, strictly where they are the whole text."""
        decoder: codecs.IncrementalDecoder | None = None
        for block, last in self._blocks():
            if decoder is not None:
                yield decoder.decode(block, last)
                continue
            if looks_binary(block[:_LOOK]):
                self._refuse(0, "binary", "bytes that are not text")
                return
            # A head may end inside a character of UTF-16 and UTF-32, so there the mark alone is believed.
            mark = "" if last else declared_by_mark(block)
            text, encoding = ("", mark) if mark else decode(block)
            if text is None:
                self._refuse(0, "encoding", f"no encoding fits (best guess {encoding})")
                return
            self.encoding = encoding
            if last:
                yield text
                return
            decoder = codecs.getincrementaldecoder(encoding)("replace")
            yield decoder.decode(block)

    def _blocks(self) -> Iterator[tuple[bytes, bool]]:
        """(whole lines of about ``_HEAD`` bytes, whether they are the last)."""
        block = bytearray()
        held = 0  # lines in all that are kept
        for line in read_lines(self.part.path, self.limit):
            if line.problem:
                problem = f"breaks off after {line.offset + line.length} bytes: {line.problem}"
                self._refuse(line.offset + line.length, "truncated", problem)
                if not held:
                    return
                break
            if line.data is None:
                self._refuse(line.offset, "too_large", f"line {line.number} has {line.length} bytes", limit=True)
                continue
            if len(block) > _HEAD:
                yield bytes(block), False
                block.clear()
            block += line.data + (b"\n" if line.ended else b"")
            held += 1
        if held or not self.refused:
            yield bytes(block), True

    def _refuse(self, offset: int, rule: str, detail: str, limit: bool = False) -> None:
        more = f", more than {self.limit} (read.max_record_bytes)" if limit else ""
        self.refused.append(Refused(self.part.label, offset, rule, f"{self.part.path}: {detail}{more}", error=True))


def split_text(pieces: Iterable[str], target: int) -> Iterator[tuple[int, str]]:
    """Cut a long text, given in pieces of any length, at blank lines, else at line ends, into pages near ``target``:
    (character offset, page). Where the pages end does not depend on the pieces."""
    text: str | None = None
    begin = 0  # of ``text`` in the whole
    for piece in pieces:
        text = piece if text is None else text + piece
        place = 0
        while len(text) - place > target + target // 2:
            end = -1
            for mark in ("\n\n", "\n", " "):
                end = text.find(mark, place + target, place + target + target // 2)
                if end >= 0:
                    break
            end = place + target if end < 0 else end + 1
            yield begin + place, text[place:end]
            place = end
        text, begin = text[place:], begin + place
    if text is not None:
        yield begin, text


def _whole(path: Path, limit: int) -> tuple[bytes, tuple[str, str] | None]:
    """A whole file, unpacked, or as much of it as can be, with (rule, what is wrong)."""
    pieces: list[bytes] = []
    size = 0
    with open_packed(path) as file:
        try:
            while piece := file.read1(64 << 10):
                size += len(piece)
                if size > limit:
                    return b"", ("too_large", f"{path}: more than {limit} bytes (read.max_record_bytes)")
                pieces.append(piece)
        except BROKEN as error:
            return b"".join(pieces), ("truncated", f"{path}: breaks off after {size} bytes: {error}")
    return b"".join(pieces), None

"""What flows through the corpus: records as read, pages as extracted, drops as they stand in the ledger."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["html", "text", "code"]
EXCERPT = 160  # characters of a dropped page that the ledger shows


@dataclass(slots=True)
class Found:
    """One thing that a reader found: bytes of HTML, or text that needs no extraction."""

    source: str  # label of the file: input name and path inside it
    offset: int  # bytes (unpacked, but a WARC record: of its member in the file); plain text: characters; Parquet: rows
    kind: Kind
    content: bytes | str
    url: str = ""
    charset: str = ""  # as the HTTP header says
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Refused:
    """One thing that is not a page (``error=False``) or could not be read (``error=True``)."""

    source: str
    offset: int
    rule: str
    detail: str
    error: bool
    url: str = ""


@dataclass(slots=True)
class Page:
    """A text on its way through the corpus. ``id`` follows from where it was found and what it said when read."""

    text: str
    source: str
    offset: int
    kind: Kind
    url: str = ""
    language: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    id: str = ""
    quality: float = 0.0  # by which the survivor of duplicates is chosen; 0 where no classifier is named
    hashes: Any = None  # of the text's tokens, kept between steps that need them; not written
    values: dict[str, float] = field(default_factory=dict)  # what each step measured, as "stage.name"

    def __post_init__(self) -> None:
        if not self.id:
            self.id = page_id(self.source, self.offset, self.text)


@dataclass(slots=True)
class Drop:
    """One row of the ledger. ``error`` marks what could not be read or processed, the rest was judged."""

    id: str
    source: str
    offset: int
    url: str
    language: str
    stage: str
    rule: str
    version: int
    value: float
    threshold: float
    survivor: str
    excerpt: str
    error: bool = False
    values: dict[str, float] = field(default_factory=dict)  # the page's own, which later steps still add to


def page_id(source: str, offset: int, text: str) -> str:
    """As `fledge.core.records.Document.id` for the source ``source#offset``: 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{source}#{offset}".encode("utf-8", "surrogatepass"))
    digest.update(b"\0")
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def drop_page(
    page: Page,
    stage: str,
    rule: str,
    value: float,
    threshold: float,
    *,
    version: int = 1,
    survivor: str = "",
    detail: str = "",
    error: bool = False,
) -> Drop:
    """The ledger's row for a page that leaves the corpus."""
    excerpt = detail or excerpt_of(page.text)
    return Drop(
        page.id, page.source, page.offset, page.url, page.language, stage, rule, version, float(value),
        float(threshold), survivor, excerpt, error, page.values,
    )  # fmt: skip


def drop_refused(found: Refused) -> Drop:
    """The ledger's row for what never became a page."""
    return Drop(
        page_id(found.source, found.offset, found.rule), found.source, found.offset, found.url, "", "read",
        found.rule, 1, 1.0, 0.0, "", found.detail[: 2 * EXCERPT], found.error,
    )  # fmt: skip


def excerpt_of(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: 4 * EXCERPT].split())
    return line if len(line) <= EXCERPT else line[: EXCERPT - 1] + "…"

"""A record to a page: characters, main content, title, normal form. Resiliparse or trafilatura does the parsing."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Literal

from pydantic import Field

from fledge.core.config import Config
from fledge.core.errors import ConfigError
from fledge.corpus.extraction.careful import Child, ExtractionError
from fledge.corpus.extraction.main_text import main_text
from fledge.corpus.extraction.normalise import NormaliseConfig, normalise
from fledge.corpus.pages import Found, Page
from fledge.corpus.reading.charset import decode
from fledge.corpus.reading.panic import is_panic

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff]")
_BLANKS = re.compile(r"\n{3,}")


class ExtractConfig(Config):
    """How the text of a page is found."""

    by: Literal["resiliparse", "trafilatura"] = Field(
        "resiliparse", description="trafilatura: slower by an order of magnitude, more careful; needs fledge[careful]"
    )
    seconds: float = Field(10.0, gt=0, description="time limit of a page in the child process")
    large_bytes: int = Field(
        1 << 20, ge=0, description="pages larger than this go to a child process with resiliparse as well"
    )


class Extractor:
    """Records to pages. Holds a child process where one is needed, from the first page that needs it."""

    def __init__(self, config: ExtractConfig | None = None, normal: NormaliseConfig | None = None) -> None:
        self.config = config or ExtractConfig()
        if self.config.by == "trafilatura" and find_spec("trafilatura") is None:
            raise ConfigError("extract.by: trafilatura is not installed: pip install 'fledge[careful]'")
        self.normal = normal or NormaliseConfig()
        self.child = Child(self.config.by)

    def __call__(self, found: Found) -> tuple[Page, str, str]:
        """(page, "", "") or (a page without text, rule, detail); rules: ``encoding``, ``parser``, ``timeout``,
        ``crash``, ``empty``."""
        meta = dict(found.meta)
        page = Page("", found.source, found.offset, found.kind, found.url, meta=meta)
        if isinstance(found.content, bytes):
            html, encoding = decode(found.content, found.charset, html=True)
            if html is None:
                return page, "encoding", f"no encoding fits (best guess {encoding})"
            if encoding not in ("utf-8", "utf-8-sig"):
                meta["encoding"] = encoding
            try:
                text, title = self._main_text(html, len(found.content))
            except ExtractionError as error:
                return page, error.rule, str(error)
            if title:
                meta["title"] = title
        else:
            text = found.content
        text, removed = tidy(text)
        if removed:
            meta["control_characters"] = removed
        if replaced := text.count("\ufffd"):
            meta["replaced_characters"] = replaced
        if found.kind != "code":
            text, repaired = normalise(text, self.normal)
            if repaired:
                meta["repaired_lines"] = repaired
        result = Page(text, page.source, page.offset, page.kind, page.url, meta=meta)
        return result, "" if text else "empty", ""

    def _main_text(self, html: str, size: int) -> tuple[str, str]:
        if self.config.by != "resiliparse" or size > self.config.large_bytes:
            return self.child.extract(html, self.config.seconds)
        try:
            return main_text(html)
        except BaseException as error:
            if isinstance(error, ValueError | RuntimeError) or is_panic(error):
                raise ExtractionError("parser", f"resiliparse: {type(error).__name__}: {error}") from None
            raise


def extract(found: Found) -> tuple[Page, str]:
    """A page and "", or a page without text and the rule, with every setting as it is by default."""
    page, problem, _ = Extractor()(found)
    return page, problem


def tidy(text: str) -> tuple[str, int]:
    """One kind of line end, no control characters, no blanks at line ends, at most one empty line in a row; and how
    many control characters there were."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text, removed = _CONTROL.subn("", text)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANKS.sub("\n\n", text).strip("\n"), removed

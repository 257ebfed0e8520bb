"""Bytes to text: encodings, main content, title. Resiliparse does the parsing."""

from __future__ import annotations

import codecs
import re
from typing import Any

from fledge.corpus.pages import Found, Page

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# Encodings whose bytes are all ASCII: they must be believed before "it is valid UTF-8" is tried.
_SEVEN_BIT = ("iso-2022", "hz", "utf-7")
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{2,30})", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff]")
_LINKED = 0.4  # a list with a larger share of its text in links is navigation
_BLANKS = re.compile(r"\n{3,}")


def looks_binary(head: bytes) -> bool:
    """NUL bytes or many control characters in the first bytes, and no byte-order mark of UTF-16 or UTF-32."""
    if head.startswith(tuple(mark for mark, _ in _BOMS)):
        return False
    if b"\0" in head:
        return True
    control = sum(byte < 9 or 13 < byte < 27 or 27 < byte < 32 for byte in head)
    return control > 0.02 * len(head)


def declared_by_mark(data: bytes) -> str:
    """The encoding that a byte-order mark names, or nothing."""
    return next((name for mark, name in _BOMS if data.startswith(mark)), "")


def decode(data: bytes, declared: str = "", html: bool = False) -> tuple[str | None, str]:
    """(text, encoding); (None, best guess) where nothing fits.

    Order: byte-order mark; UTF-8 where it is valid and not mere ASCII (bytes of other encodings practically never
    are, while headers are often wrong); the HTTP header; the page's own meta element; detection (uchardet, through
    resiliparse). A few stray bytes in an otherwise fitting encoding become U+FFFD.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            text = _try(data, name)
            if text is not None:
                return text, name
    names = [declared] if declared.lower().startswith(_SEVEN_BIT) else []
    names += ["utf-8", declared]
    if html:
        found = _META.search(data[:4096])
        names.append(found.group(1).decode("ascii") if found else "")
    for name in names:
        if name:
            text = _try(data, name)
            if text is not None:
                return text, _python_name(name) or name
    from resiliparse.parse.encoding import detect_encoding

    guess = detect_encoding(data) or "utf-8"
    text = _try(data, guess)
    if text is not None:
        return text, guess
    for name in [*names, guess]:
        codec = _python_name(name)
        if codec:
            text = data.decode(codec, "replace")
            if text.count("\ufffd") <= max(1, len(text) // 500):
                return text, codec
    return None, guess


def _python_name(name: str) -> str | None:
    """As the WHATWG's table of labels says where it matters: gb2312 and gbk are read as gb18030, latin-1 as cp1252."""
    if not name:
        return None
    try:
        codec = codecs.lookup(name.strip()).name
    except (LookupError, ValueError):
        return None
    return {"gb2312": "gb18030", "gbk": "gb18030", "iso8859-1": "cp1252", "ascii": "cp1252"}.get(codec, codec)


def _try(data: bytes, name: str) -> str | None:
    codec = _python_name(name)
    if codec is None:
        return None
    try:
        return data.decode(codec)
    except (UnicodeDecodeError, LookupError):
        return None


def extract(found: Found) -> tuple[Page, str]:
    """A page and "" , or a page without text and the reason: ``encoding``, ``parser`` or ``empty``."""
    page = Page("", found.source, found.offset, found.kind, found.url, meta=dict(found.meta))
    if isinstance(found.content, bytes):
        html, encoding = decode(found.content, found.charset, html=True)
        if html is None:
            return page, "encoding"
        if encoding not in ("utf-8", "utf-8-sig"):
            page.meta["encoding"] = encoding
        try:
            text, title = main_text(html)
        except (ValueError, RuntimeError):
            return page, "parser"
        if title:
            page.meta["title"] = title
    else:
        text = found.content
    text = tidy(text)
    result = Page(text, page.source, page.offset, page.kind, page.url, meta=page.meta)
    return result, "" if text else "empty"


def main_text(html: str) -> tuple[str, str]:
    """Main content as plain text with its lines, and the title."""
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    tree = HTMLTree.parse(html)
    _keep_prose_lists(tree)
    text = extract_plain_text(tree, main_content=True, alt_texts=False, preserve_formatting=True)
    return text, _title(tree)


def _keep_prose_lists(tree: Any) -> None:
    """Turn bulleted lists that are not lists of links into blocks that begin with a dash.

    Resiliparse takes every ``ul`` for navigation and would drop it from the main content.
    """
    if tree.body is None:
        return
    for node in tree.body.query_selector_all("ul"):
        length = len(node.text.strip())
        linked = sum(len(link.text) for link in node.query_selector_all("a")) if length else 0
        if length == 0 or linked > _LINKED * length:
            continue
        for item in list(node.child_nodes):
            if item.tag == "li":
                block = _renamed(tree, item)
                block.insert_before(tree.create_text_node("- "), block.first_child)
        _renamed(tree, node)


def _renamed(tree: Any, node: Any) -> Any:
    """The node as a ``div`` in its place, with what it held and with the attributes that mark boilerplate."""
    block = tree.create_element("div")
    for name in ("class", "id", "style", "hidden", "role"):
        if name in node.attrs:
            block[name] = node[name]
    for child in list(node.child_nodes):
        block.append_child(child)
    node.parent.replace_child(block, node)
    return block


def _title(tree: Any) -> str:
    return " ".join((tree.title or "").split())[:300]


def tidy(text: str) -> str:
    """One kind of line end, no control characters, no blanks at line ends, at most one empty line in a row."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROL.sub("", text)
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    return _BLANKS.sub("\n\n", text).strip("\n")

"""Bytes to characters: which encoding a text is in."""

from __future__ import annotations

import codecs
import re

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
# Encodings whose bytes are all ASCII: they must be believed before "it is valid UTF-8" is tried.
_SEVEN_BIT = ("iso-2022", "hz", "utf-7")
_META = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_:.-]{2,30})", re.IGNORECASE)


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

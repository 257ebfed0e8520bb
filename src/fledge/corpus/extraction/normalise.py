"""The normal form of text that is kept: NFC, ordinary letters and digits, and, where asked for, repaired mojibake.

NFKC is for measuring only: it would make 2 of ², fi of ﬁ and an ASCII comma of the Chinese one.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from fledge.core.config import Config
from fledge.corpus.text.tokens import han_count

# Full-width letters and digits; not the punctuation, which Chinese text is written with.
_WIDE = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]")
_TO_ASCII = 0xFEE0  # what a full-width character is above the ordinary one


class NormaliseConfig(Config):
    """What may be changed about a text that is kept. Source code is never changed."""

    width: Literal["keep", "letters"] = Field("letters", description="full-width letters and digits become ordinary")
    repair: bool = Field(False, description="undo mojibake, line by line, where it can be undone without loss")


def normalise(text: str, config: NormaliseConfig) -> tuple[str, int]:
    """The text in its normal form, and how many of its lines were repaired."""
    if text.isascii():
        return text, 0
    repaired = 0
    if config.repair:
        lines = text.split("\n")
        mended = [repair(line) for line in lines]
        repaired = sum(a != b for a, b in zip(lines, mended, strict=True))
        text = "\n".join(mended)
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    if config.width == "letters":
        text = _WIDE.sub(lambda found: chr(ord(found.group()) - _TO_ASCII), text)
    return text, repaired


def repair(line: str) -> str:
    """A line whose encoding was mistaken, read again: UTF-8 that was read as GB 18030 or Big5 here, the rest by ftfy.

    Only what decodes without loss and gets shorter counts as mojibake.
    """
    if line.isascii():
        return line
    if han_count(line):
        for wrong in ("gb18030", "big5"):
            try:
                again = line.encode(wrong).decode("utf-8")
            except UnicodeError:
                continue
            if len(again) < len(line):
                return again
    import ftfy

    return ftfy.fix_text(line, _only_encoding())


@lru_cache(maxsize=1)
def _only_encoding() -> Any:
    """ftfy's repairs of encodings, and none of its changes of quotation marks, ligatures and widths."""
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html=False, remove_terminal_escapes=False, fix_latin_ligatures=False, fix_character_width=False,
        uncurl_quotes=False, fix_line_breaks=False, remove_control_chars=False, normalization=None, explain=False,
    )  # fmt: skip

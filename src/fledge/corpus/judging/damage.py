"""Mojibake: text that was decoded with the wrong encoding, found by decoding it back.

Characters of real text, encoded in the wrong encoding that is suspected, practically never form valid UTF-8 (or
GB 18030) again; those of mojibake do. The value is the share of the text's non-ASCII characters that can be undone in
this way, that are replacement characters, or that ftfy's table of improbable neighbours marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import Field

from fledge.core.config import Config
from fledge.corpus.text.tokens import HAN, han_count

VERSION = 1
_RUN = re.compile(r"[^\x00-\x7f]+(?:[ -~]{0,2}[^\x00-\x7f]+)*")
_HAN = re.compile(rf"[{HAN}]")
# What GB 18030 makes of U+FFFD's UTF-8 bytes: the trace of text that was broken before.
_BROKEN_TWICE = re.compile("锟斤拷|锟斤|斤拷|锘縟?|烫烫烫|屯屯屯")
_WESTERN_RUN = re.compile("[\u0080-\u024f\u2013-\u203a\u20ac\u2122]{3}")
_UTF8_RUN = re.compile(rb"(?:[\xe3-\xe9\xef][\x80-\xbf]{2}){3}")
_NOT_TYPOGRAPHY = re.compile("[^\x00-\x7f\u00a0\u2010-\u203a]")  # quotes and dashes alone are no mojibake
_WESTERN = ("cp1252", "latin-1", "cp1250", "cp1251", "mac-roman")


class DamageConfig(Config):
    """When a page counts as broken."""

    share: float = Field(0.1, description="most of a page's non-ASCII characters that may be mojibake")
    characters: int = Field(6, description="fewer damaged characters than this are let pass (a stray quotation mark)")


def damaged_characters(text: str) -> int:
    """How many characters of a text are mojibake."""
    if text.isascii():
        return 0
    if _HAN.search(text) and not _suspicious(text):
        return text.count("\ufffd")
    marks = text.count("\ufffd") + sum(map(len, _BROKEN_TWICE.findall(text)))
    return marks + sum(_undone(run) for run in _runs(text)) + _improbable(text)


def damage(text: str) -> tuple[float, int]:
    """(share of the non-ASCII characters, count) of mojibake."""
    count = damaged_characters(text)
    if count == 0:
        return 0.0, 0
    foreign = sum(not character.isascii() for character in text)
    return min(1.0, count / max(1, foreign)), count


def _suspicious(text: str) -> bool:
    """A quick look at a text with Han characters: could some of it be undone at all?"""
    if _BROKEN_TWICE.search(text) or _WESTERN_RUN.search(text):
        return True
    return any(_UTF8_RUN.search(text.encode(codec, "ignore")) for codec in ("gb18030", "big5"))


def _runs(text: str) -> Iterator[str]:
    for match in _RUN.finditer(text):
        if len(match.group()) >= 4:
            yield match.group()


def _undone(run: str) -> int:
    """Length of the run if its bytes in a suspected encoding read well in the other, else 0."""
    if _HAN.search(run):
        return _read_again(run, "gb18030", "utf-8") or _read_again(run, "big5", "utf-8")
    for wrong in _WESTERN:
        length = _read_again(run, wrong, "utf-8")
        if length:
            return length
    # Chinese bytes read as Latin-1: almost every character an accented letter or sign.
    foreign = sum(not character.isascii() for character in run)
    if foreign >= 0.8 * len(run) and foreign >= 6:
        for wrong in ("latin-1", "cp1252"):
            length = _read_again(run, wrong, "gb18030")
            if length:
                return length
    return 0


def _read_again(run: str, wrong: str, right: str) -> int:
    """Length of the run if at least .8 of what it decodes to is sound text, shorter than before; else 0."""
    try:
        data = run.encode(wrong, "ignore")
    except (LookupError, ValueError):
        return 0
    if len(data) < 0.8 * len(run):
        return 0
    again = data.decode(right, "replace")
    bad = again.count("\ufffd") + sum(0x80 <= ord(character) < 0xA0 for character in again)
    foreign = sum(not character.isascii() for character in again) - bad
    if foreign < 1 or bad > 0.25 * (foreign + bad):
        return 0
    if right == "gb18030" and han_count(again) < 0.8 * foreign:
        return 0
    return len(run)


def _improbable(text: str) -> int:
    """ftfy's count of improbable sequences, where the text is not Chinese (it knows Latin, Cyrillic and Greek)."""
    if _HAN.search(text) or not _NOT_TYPOGRAPHY.search(text):
        return 0
    from ftfy.badness import badness

    return 2 * int(badness(text))

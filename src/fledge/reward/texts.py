"""Texts as verifiers compare them: spelling, case and spaces that mean nothing are taken away."""

from __future__ import annotations

import re
import unicodedata


def simplify(text: str, case: bool = False) -> str:
    """NFKC, casefolded unless `case` matters, one space between words, straight apostrophes."""
    text = unicodedata.normalize("NFKC", text).replace("\u2019", "'").replace("\u2018", "'")
    return " ".join((text if case else text.casefold()).split())


def trim(text: str, case: bool = False) -> str:
    """Simplified text without punctuation at its ends."""
    text = simplify(text, case)
    start, end = 0, len(text)
    while start < end and (text[start].isspace() or unicodedata.category(text[start])[0] == "P"):
        start += 1
    while end > start and (text[end - 1].isspace() or unicodedata.category(text[end - 1])[0] == "P"):
        end -= 1
    return text[start:end]


def occurs(needle: str, simplified: str) -> bool:
    """Whether `needle` occurs in a simplified text; a pure-ASCII needle only as whole words ("art" not in "party")."""
    needle = simplify(needle)
    if not needle:
        raise ValueError("an empty text to look for")
    if not needle.isascii():
        return needle in simplified
    left = r"(?<![a-z0-9_])" if needle[0].isalnum() else ""
    right = r"(?![a-z0-9_])" if needle[-1].isalnum() else ""
    return re.search(left + re.escape(needle) + right, simplified) is not None

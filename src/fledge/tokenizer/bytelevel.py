"""Byte-level BPE's facts: the alphabet that stands for bytes, Qwen's pre-tokeniser, what is surely in NFC.

The pre-tokeniser is the ordered alternation of Qwen's tokenizer: contractions; letters with one leading mark; one
digit alone; other signs with trailing line breaks; white space. (Qwen technical report, section 2.2: cl100k's
pattern with single digits.)
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Mapping

ENDOFTEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CONTROL_STRINGS = (ENDOFTEXT, IM_START, IM_END)

QWEN_PATTERN = "|".join(
    (
        r"'(?i:s|t|re|ve|m|ll|d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


@functools.cache
def byte_alphabet() -> tuple[str, ...]:
    """The character that stands for each of the 256 bytes: itself where printable, else U+0100 and on (GPT-2)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    result, others = [], 0
    for byte in range(256):
        if byte in printable:
            result.append(chr(byte))
        else:
            result.append(chr(256 + others))
            others += 1
    return tuple(result)


@functools.cache
def _byte_of() -> Mapping[str, int]:
    return {character: byte for byte, character in enumerate(byte_alphabet())}


def token_bytes(token: str) -> bytes | None:
    """The bytes of a token written in the byte alphabet; None where it holds another character."""
    table = _byte_of()
    try:
        return bytes(table[character] for character in token)
    except KeyError:
        return None


_BEYOND_BMP = re.compile("[\U00010000-\U0010ffff]")


@functools.cache
def _unassigned(first: int, last: int) -> re.Pattern[str]:
    """Code points that this interpreter's Unicode tables do not know (its NFC check would pass over them)."""
    ranges: list[tuple[int, int]] = []
    for code in range(first, last + 1):
        if unicodedata.category(chr(code)) == "Cn":
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1] = (ranges[-1][0], code)
            else:
                ranges.append((code, code))
    return re.compile("[" + "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges) + "]")


def is_nfc(text: str) -> bool:
    """True where the text is surely in NFC by any version of Unicode; quick.

    The two planes are searched apart because Python's regular expressions are quick on sets within the first.
    """
    if text.isascii():
        return True
    if not unicodedata.is_normalized("NFC", text) or _unassigned(0x80, 0xFFFF).search(text):
        return False
    return not _BEYOND_BMP.search(text) or not _unassigned(0x10000, 0x1FFFF).search(text)

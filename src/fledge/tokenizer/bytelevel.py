"""Byte-level BPE's facts: the alphabet that stands for bytes, Qwen's pre-tokeniser, what is surely in NFC.

The pre-tokeniser is the ordered alternation of Qwen's tokenizer: contractions; letters with one leading mark; one
digit alone; other signs with trailing line breaks; white space. (Qwen technical report, section 2.2: cl100k's
pattern with single digits.)
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping

import numpy as np

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


_UNKNOWN, _OTHER, _INERT = 0, 1, 2
_TABLE = 0x20000  # code points beyond, all but a few of them Chinese characters, are left to `unicodedata`


def is_nfc(text: str) -> bool:
    """True where the text is surely in NFC by any version of Unicode; quick.

    By a table, at 3 ns a character: this was done by regular expressions, and took longer than encoding.
    """
    if text.isascii():
        return True
    points: np.ndarray = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    lowest = int(_under_nfc().take(np.minimum(points, _TABLE)).min())
    return lowest == _INERT or (lowest == _OTHER and unicodedata.is_normalized("NFC", text))


@functools.cache
def _under_nfc() -> np.ndarray:
    """By code point: `_INERT` where it is a starter, is not changed, and is not joined to what stands before it;
    `_UNKNOWN` where this interpreter's Unicode tables do not know it (its check would pass over it)."""
    kinds = np.full(_TABLE + 1, _OTHER, np.uint8)
    second = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}  # Hangul vowels and finals join by rule
    for code in range(_TABLE):
        character = chr(code)
        parts = unicodedata.decomposition(character).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            second.add(int(parts[1], 16))
        if unicodedata.category(character) == "Cn":
            kinds[code] = _UNKNOWN
        elif not unicodedata.combining(character) and unicodedata.is_normalized("NFC", character):
            kinds[code] = _INERT
    joined = [code for code in second if code < _TABLE and kinds[code] == _INERT]
    kinds[joined] = _OTHER
    return kinds

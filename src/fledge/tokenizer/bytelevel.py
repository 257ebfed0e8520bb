"""Byte-level BPE's facts: the alphabet that stands for bytes, Qwen's pre-tokeniser, and a fast encoder with its ids.

The pre-tokeniser is the ordered alternation of Qwen's tokenizer: contractions; letters with one leading mark; one
digit alone; other signs with trailing line breaks; white space. (Qwen technical report, section 2.2: cl100k's
pattern with single digits.)
"""

from __future__ import annotations

import functools
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

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
# The same alternation as Qwen's own files spell it: the contractions with the apostrophe inside the group.
_QWEN_SPELLING = QWEN_PATTERN.replace("'(?i:s|t|re|ve|m|ll|d)", "(?i:'s|'t|'re|'ve|'m|'ll|'d)")
# The patterns whose splits were compared between the two regex engines, over all code points.
_COMPARED = (QWEN_PATTERN, _QWEN_SPELLING)

# The back-tracking of fancy-regex (inside tiktoken) overflows on white-space runs of this order.
LONGEST_RUN = 20_000
_LONG_RUN = re.compile(rf"\s{{{LONGEST_RUN}}}")


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


class FastEncoder:
    """tiktoken with a tokenizer's own ranks: the same ids as tokenizers, two to three times as fast.

    The ids are the same because in a list of merges that BPE training made, every token arises from one pair only,
    and the order of merges is the order of ids: then joining by rank of the result (tiktoken) and by rank of the pair
    (tokenizers) choose the same pairs. `make` verifies both properties, token by token, and declines otherwise.
    """

    def __init__(self, ranks: dict[bytes, int], pattern: str, nfc: bool, added: Sequence[str] = ()) -> None:
        import tiktoken
        from tokenizers import normalizers

        self._normalise = normalizers.NFC().normalize_str if nfc else None
        self._added = re.compile("|".join(map(re.escape, added))) if added else None
        self._encoding = tiktoken.Encoding("fledge", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def usable(self, text: str) -> bool:
        """False for text with an added token that text may hold (``<tool_call>``), or that would overflow."""
        return _LONG_RUN.search(text) is None and (self._added is None or self._added.search(text) is None)

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(self._ready(text))

    def encode_batch(self, texts: Sequence[str], threads: int) -> list[list[int]]:
        return self._encoding.encode_ordinary_batch([self._ready(text) for text in texts], num_threads=threads)

    def _ready(self, text: str) -> str:
        return text if self._normalise is None or is_nfc(text) else str(self._normalise(text))


def make_fast(definition: str) -> tuple[FastEncoder | None, str]:
    """A fast encoder for a ``tokenizer.json``, or (None, why not)."""
    value = json.loads(definition)
    pattern, nfc, why = _splitting(value)
    if why:
        return None, why
    ranks, why = _ranks(value)
    if why:
        return None, why
    added = [token for token in value.get("added_tokens", []) if not token["special"]]
    if any(token["normalized"] for token in added):
        return None, "it has added tokens that are looked for in normalised text"
    return FastEncoder(ranks, pattern, nfc, [token["content"] for token in added]), ""


def _splitting(value: dict[str, Any]) -> tuple[str, bool, str]:
    """(pattern, NFC or not, why it cannot be used) of the normaliser and the pre-tokeniser."""
    normaliser = value.get("normalizer")
    if normaliser is not None and normaliser.get("type") != "NFC":
        return "", False, f"its normaliser is {normaliser.get('type')}"
    steps = (value.get("pre_tokenizer") or {}).get("pretokenizers", [])
    if [step.get("type") for step in steps] != ["Split", "ByteLevel"]:
        return "", False, "its pre-tokeniser is not one split followed by ByteLevel"
    split, bytelevel = steps
    if bytelevel.get("add_prefix_space") or bytelevel.get("use_regex", True) or split.get("invert"):
        return "", False, "its pre-tokeniser has options that tiktoken has not"
    pattern = split["pattern"].get("Regex", "")
    if split["behavior"] != "Isolated" or pattern not in _COMPARED:
        return "", False, "its pre-tokeniser is not Qwen's"
    return pattern, normaliser is not None, ""


def _ranks(value: dict[str, Any]) -> tuple[dict[bytes, int], str]:
    model = value["model"]
    options = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if model.get("type") != "BPE" or any(model.get(option) for option in options):
        return {}, "its model is not plain BPE"
    added = {token["content"] for token in value.get("added_tokens", [])}
    ranks: dict[bytes, int] = {}
    for token, number in model["vocab"].items():
        if token not in added:
            piece = token_bytes(token)
            if piece is None:
                return {}, f"its token {token!r} is not in the byte alphabet"
            ranks[piece] = number
    if any(bytes([byte]) not in ranks for byte in range(256)):
        return {}, "a byte is missing from its vocabulary"
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    merges = [(token_bytes(left) or b"", token_bytes(right) or b"") for left, right in pairs]
    last = -1
    for left, right in merges:
        rank = ranks.get(left + right, -1)
        if rank <= last:
            return {}, "the order of its merges is not the order of its ids"
        last = rank
        if canonical_parts(left + right, ranks, rank) != [left, right]:
            return {}, f"its token {left + right!r} does not arise from its merge"
    if len(merges) != sum(len(piece) > 1 for piece in ranks):
        return {}, "some of its tokens arise from no merge"
    return ranks, ""


def canonical_parts(piece: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """BPE of a piece with the ranks lower than ``below``."""
    parts = [piece[i : i + 1] for i in range(len(piece))]
    while len(parts) > 1:
        found = [(ranks.get(parts[i] + parts[i + 1], below), i) for i in range(len(parts) - 1)]
        rank, place = min(found)
        if rank >= below:
            break
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts

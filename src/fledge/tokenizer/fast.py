"""tiktoken with a tokenizer's own ranks: the ids of `tokenizers`, several times as fast.

The ids are the same because every token arises from one merge only, both its parts have lower ids, and the order of
merges is the order of ids. Take any state of the encoding of a word, and two neighbours whose bytes together are the
token t. What has happened between their outer ends is what would have happened to the bytes of t alone (no merge
crossed the ends, and in both the lowest pair comes first, the leftmost of equals). Alone they end as t, through its
one merge. So where tiktoken looks up the joined bytes and tokenizers the pair, both see the same candidates with the
same order; and a whole word that is a token ends as that token. `make_fast` checks each of these for each token, and
declines otherwise.

Many documents go through one call, and what tiktoken is slow at is arranged for in the text: of several white-space
characters before a word the last goes with the word, which the pattern says by a look-ahead, ``\\s+(?!\\S)``, and for
that the whole pattern runs in a back-tracking engine. A *mark* before that last character says the same without a
look-ahead: no branch of the pattern matches it, so the splits end at it, and what is not matched is left out. Measured
on one core of an Intel Xeon with AMX, MB/s with 4,096 and 32,768 rows: one document a call, as lists, 7.1 and 8.3;
marked, 9.2 and 11.4. (Frequent words as ranks of their own gave another 1.1, and cost as much to find: not kept.)
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fledge.tokenizer.bytelevel import QWEN_PATTERN, is_nfc, token_bytes

# The same alternation as Qwen's own files spell it: the contractions with the apostrophe inside the group.
_QWEN_SPELLING = QWEN_PATTERN.replace("'(?i:s|t|re|ve|m|ll|d)", "(?i:'s|'t|'re|'ve|'m|'ll|'d)")
# The patterns whose splits were compared between the two regex engines, over all code points.
_COMPARED = (QWEN_PATTERN, _QWEN_SPELLING)

# Between documents, and before the last of several white-space characters. Text that holds one goes another way.
SEPARATOR, MARK = "\x1e", "\x1f"
# The back-tracking of fancy-regex (inside tiktoken) overflows on white-space runs of this order.
LONGEST_RUN = 20_000
_LONG_RUN = re.compile(rf"\s{{{LONGEST_RUN}}}")

# Unicode's White_Space, which is what \s means to the regex engines.
_WHITE = [*range(0x9, 0xE), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
_SPACE, _MAY_BE_LAST, _OTHER = 1, 2, 4


class FastEncoder:
    """Ids of texts in which no added token is to be found. Made by `make_fast`; may be used from several threads."""

    def __init__(self, ranks: dict[bytes, int], pattern: str, nfc: bool, added: Sequence[str] = ()) -> None:
        from tokenizers import normalizers

        self._normalise = normalizers.NFC().normalize_str if nfc else None
        self._added = re.compile("|".join(map(re.escape, added))) if added else None
        self._ranks = ranks
        self._pattern = pattern
        self._separator = max(ranks.values()) + 1

    # -- one text --------------------------------------------------------------------------------------------------

    def usable(self, text: str) -> bool:
        """False for text with an added token that text may hold (``<tool_call>``), or that would overflow."""
        return _LONG_RUN.search(text) is None and (self._added is None or self._added.search(text) is None)

    def encode(self, text: str) -> list[int]:
        return list(self._single.encode_ordinary(self._ready(text)))

    @functools.cached_property
    def _single(self) -> Any:
        return _encoding(self._ranks, self._pattern)

    def _ready(self, text: str) -> str:
        return text if self._normalise is None or is_nfc(text) else str(self._normalise(text))

    # -- many texts ------------------------------------------------------------------------------------------------

    def encode_many(self, texts: Sequence[str], end: int) -> tuple[np.ndarray, np.ndarray] | None:
        """(ids of all texts, ``end`` behind each, int32; how many each text has with it, int64).

        None where a text holds an added token, or a control character that separates or marks here. Raises
        `UnicodeEncodeError` for a lone surrogate. The time is spent outside the GIL for the most part.
        """
        joined = SEPARATOR.join([*texts, ""])
        if joined.count(SEPARATOR) != len(texts) or MARK in joined:
            return None
        if self._added is not None and self._added.search(joined) is not None:
            return None
        if self._normalise is not None and not is_nfc(joined):
            joined = SEPARATOR.join([*map(self._ready, texts), ""])
        found = self._many.encode_to_numpy(marked(joined), allowed_special={SEPARATOR})
        ids = found.astype(np.int32)
        ends = np.flatnonzero(found == self._separator)
        ids[ends] = end
        return ids, np.diff(ends, prepend=-1)

    @functools.cached_property
    def _many(self) -> Any:
        return _encoding(self._ranks, without_look_ahead(self._pattern), {SEPARATOR: self._separator})


def _encoding(ranks: Mapping[bytes, int], pattern: str, special: Mapping[str, int] | None = None) -> Any:
    import tiktoken

    return tiktoken.Encoding("fledge", pat_str=pattern, mergeable_ranks=dict(ranks), special_tokens=dict(special or {}))


# -- marks ---------------------------------------------------------------------------------------------------------


def without_look_ahead(pattern: str) -> str:
    """The pattern for marked text: the same splits of what is between marks."""
    result = pattern.replace(r"|\s+(?!\S)", "").replace(r"[^\s\p{L}\p{N}]+", rf"[^\s\p{{L}}\p{{N}}{MARK}]+")
    if "(?!" in result or MARK not in result:
        raise ValueError(f"not a pattern of Qwen's form: {pattern}")
    return result


def marked(text: str) -> str:
    """Text with a `MARK` before the last of several white-space characters, where it is no line break and a
    character that is neither white space nor `SEPARATOR` follows.

    Done on arrays: as a regular expression of Python it takes 40 ns a character of source code, this 5 to 10.
    """
    form, kind = ("latin-1", np.uint8) if text.isascii() else ("utf-32-le", np.uint32)
    points: np.ndarray = np.frombuffer(text.encode(form), kind)
    kinds = _kinds().take(points if text.isascii() else np.minimum(points, _WHITE[-1] + 1))
    places = np.flatnonzero(kinds[:-2] & (kinds[1:-1] >> 1) & (kinds[2:] >> 2) & 1) + 1
    if not len(places):
        return text
    return np.insert(points, places, ord(MARK)).tobytes().decode(form)


@functools.cache
def _kinds() -> np.ndarray:
    """By code point: `_SPACE`, `_MAY_BE_LAST`, `_OTHER`; what is beyond the last white space is as the last entry."""
    kinds = np.full(_WHITE[-1] + 2, _OTHER, np.uint8)
    kinds[_WHITE] = _SPACE | _MAY_BE_LAST
    kinds[[ord("\r"), ord("\n")]] = _SPACE
    kinds[ord(SEPARATOR)] = 0
    return kinds


# -- whether the ids are the same ----------------------------------------------------------------------------------


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
    """(bytes -> id, "") of a model whose merges tiktoken follows to the same end, else (..., why not)."""
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
    return ranks, _merges_differ(model, ranks)


def _merges_differ(model: dict[str, Any], ranks: Mapping[bytes, int]) -> str:
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    last = -1
    for left, right in pairs:
        parts = [token_bytes(left) or b"", token_bytes(right) or b""]
        rank = ranks.get(b"".join(parts), -1)
        if rank <= last:
            return "the order of its merges is not the order of its ids"
        if any(len(part) > 1 and ranks.get(part, rank) >= rank for part in parts):
            return f"its token {left + right!r} comes before a part of it"
        last = rank
    if len(pairs) != sum(len(piece) > 1 for piece in ranks):
        return "some of its tokens arise from no merge"
    # By tokenizers itself, word by word: does each token, alone, end as itself?
    from tokenizers import Tokenizer as Backend

    plain = {**model, "ignore_merges": False}
    backend = Backend.from_str(json.dumps({"version": "1.0", "added_tokens": [], "model": plain}))
    tokens = [left + right for left, right in pairs]
    for token, found in zip(tokens, backend.encode_batch_fast(tokens, add_special_tokens=False), strict=True):
        if found.ids != [model["vocab"][token]]:
            return f"its token {token!r} does not arise from its merge"
    return ""

"""Duplicates: what is one, as configuration; the key of an exact copy.

Signatures and shingles are made shard by shard (`signatures`), grouped in one global step in DuckDB (`grouping`). The
survivor of a group is its best document by quality, then the longest, then the one with the smallest id; a document
is dropped only for a survivor that it resembles itself (no chains), so the ledger's value is the similarity of the two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from fledge.core.config import Preset, WithPresets
from fledge.corpus.copies.shingles import Unit
from fledge.corpus.judging.repeats import RepeatsConfig
from fledge.corpus.text.tokens import normalise

VERSION = 2
_NOT_WORD = re.compile(r"[\W_]+")
_ASCII_NOT_WORD = bytes(code for code in range(128) if _NOT_WORD.match(chr(code)))

# FineWeb-2's up-sampling: a document that many others repeat is worth more, until it is boilerplate.
REHYDRATION = {"fineweb2": ((1, 1), (2, 2), (3, 3), (5, 5), (100, 8), (1000, 1))}


class DuplicatesConfig(WithPresets):
    """FineWeb's 14 bands of 8 (candidates from a similarity of about .72 on), then a true Jaccard of .8 (SPEC E.4)."""

    presets: ClassVar[Mapping[str, Preset]] = {
        "fineweb": Preset(
            {"bands": 14, "rows": 8, "shingle": 5, "unit": "words"}, "FineWeb (2406.17557): bands of word 5-grams"
        ),
        "ct_llm": Preset(
            {"bands": 9, "rows": 13, "shingle": 13, "unit": "characters"},
            "CT-LLM (2404.04167) and SlimPajama: finds a pair of similarity .8 two times in five only",
        ),
    }

    preset: str | None = Field("fineweb", description="bands, rows, shingle and unit not given apart")
    exact: bool = True
    near: bool = True
    across: Literal["source", "all"] = Field(
        "source", description="compared within each folder that is read (files named alone are one source), or across"
    )
    bands: int = Field(14, ge=1)
    rows: int = Field(8, ge=1)
    shingle: int = Field(5, ge=1, description="tokens")
    unit: Unit = Field("words", description="words: and single Han characters; segmented: rjieba's words; characters")
    jaccard: float = Field(0.8, gt=0, le=1)
    largest_bucket: int = Field(200, ge=2, description="in a larger bucket only its best members are compared with")
    against: tuple[Path, ...] = Field((), description="finished corpora: what they hold is left out of this one")
    sketch: int = Field(
        256, ge=0, description="shingles a document that are kept for later corpora (`against`); 0 keeps no signatures"
    )
    repeat: tuple[tuple[int, int], ...] = Field(
        ((1, 1),), description="(from this cluster size, times): column `repeat`; or fineweb2"
    )
    repeats: RepeatsConfig = Field(default_factory=RepeatsConfig)
    # Not part of what the corpus is: the bytes are the same with any number.
    memory: int = Field(256, ge=64, exclude=True, description="MiB for the global step; more goes to the disk")

    @field_validator("repeat", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        return REHYDRATION.get(given, given) if isinstance(given, str) else given

    @field_validator("repeat")
    @classmethod
    def _rising(cls, given: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
        sizes = [size for size, _ in given]
        if not given or sizes[0] != 1 or sorted(set(sizes)) != sizes or any(times < 0 for _, times in given):
            raise ValueError("is a list of (cluster size, times), sizes rising from 1, times not negative")
        return given


def exact_key(text: str) -> bytes:
    """128-bit key of a text under NFKC, lower case, without blanks and punctuation (SPEC E.4)."""
    if text.isascii():  # the same bytes as below, without NFKC and a regular expression
        plain = text.lower().encode("ascii").translate(None, _ASCII_NOT_WORD)
    else:
        plain = _NOT_WORD.sub("", normalise(text)).encode("utf-8", "surrogatepass")
    # A page of symbols only (a table of signs) is compared as it is, or all of them would be one.
    return hashlib.blake2b(plain or text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def source_of(label: str) -> str:
    """The source of a document: the folder that was read. Files that were named one by one are one source, because a
    shell's pattern names them so."""
    return label.partition("/")[0] if "/" in label else ""

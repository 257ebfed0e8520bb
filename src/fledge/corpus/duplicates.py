"""Duplicates: exact after normalisation, then MinHash-LSH with every candidate pair verified by its true Jaccard.

Signatures are made per shard; grouping is one global step on sorted arrays. The survivor of a group is its longest
document, then the one with the smallest id; a document is dropped only for a survivor that it resembles itself
(no chains), so the ledger's value is the Jaccard similarity of the two.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import Field

from fledge.core.config import Config
from fledge.corpus.tokens import Hashes, hash_tokens, jaccard, mix, shingles, tokens

VERSION = 1
_NOT_WORD = re.compile(r"[\W_]+")


class DuplicatesConfig(Config):
    """FineWeb's 14 bands of 8 (candidates from a similarity of about .72 on), then a true Jaccard of .8 (SPEC E.4)."""

    exact: bool = True
    near: bool = True
    bands: int = Field(14, ge=1)
    rows: int = Field(8, ge=1)
    shingle: int = Field(5, ge=1, description="tokens: words, or single Han characters")
    jaccard: float = Field(0.8, gt=0, le=1)
    largest_bucket: int = Field(200, ge=2, description="in a larger bucket only its longest members are compared with")


def exact_key(text: str) -> bytes:
    """128-bit key of a text under NFKC, lower case, without blanks and punctuation (SPEC E.4)."""
    plain = _NOT_WORD.sub("", unicodedata.normalize("NFKC", text).lower())
    # A page of symbols only (a table of signs) is compared as it is, or all of them would be one.
    return hashlib.blake2b((plain or text).encode("utf-8", "surrogatepass"), digest_size=16).digest()


class MinHash:
    """Signatures of token sequences; E[share of equal entries] is the Jaccard similarity of the shingle sets.

    The hash family is x -> mix(a*x + b) over 64 bits, a odd; a and b come from a fixed generator, so signatures can
    be compared between runs.
    """

    def __init__(self, config: DuplicatesConfig) -> None:
        self.config = config
        generator = np.random.Generator(np.random.PCG64(20240607))
        count = config.bands * config.rows
        self._a = generator.integers(0, 2**63, size=(count, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._b = generator.integers(0, 2**63, size=(count, 1), dtype=np.uint64)

    def shingles(self, text: str, hashes: Hashes | None = None) -> Hashes:
        """The text's shingle set; ``hashes`` are those of its tokens, where known."""
        return shingles(hash_tokens(tokens(text)) if hashes is None else hashes, self.config.shingle)

    def signature(self, shingles: Hashes) -> Hashes:
        """(bands*rows,) uint32 of a sorted set of shingles; of an empty one, all ones."""
        if len(shingles) == 0:
            return np.full(len(self._a), 0xFFFFFFFF, dtype=np.uint32)
        result = np.full(len(self._a), 0xFFFFFFFF, dtype=np.uint32)
        for begin in range(0, len(shingles), 4096):  # bounds the memory of a long document
            part = shingles[begin : begin + 4096]
            values = (self._a * part + self._b) >> np.uint64(32)
            result = np.minimum(result, values.min(axis=1).astype(np.uint32))
        return result

    def bands(self, signature: Hashes) -> Hashes:
        """(bands,) uint64: one number for each band of rows; equal numbers in a place make a candidate pair."""
        rows = signature.reshape(self.config.bands, self.config.rows).astype(np.uint64)
        value = np.arange(self.config.bands, dtype=np.uint64)
        for row in range(self.config.rows):
            value = mix(value * np.uint64(0x9E3779B97F4A7C15) + rows[:, row])
        return value


@dataclass(frozen=True)
class Document:
    """What the global step knows of a document."""

    id: str
    length: int  # characters
    key: bytes


@dataclass(frozen=True)
class Duplicate:
    """A document that leaves for another one. Indices count the documents of the whole corpus."""

    index: int
    survivor: int
    similarity: float
    exact: bool


def find_duplicates(
    documents: Sequence[Document], bands: Hashes, text_of: Callable[[int], str], config: DuplicatesConfig
) -> tuple[list[Duplicate], dict[str, int]]:
    """Which documents go, for which survivor, and counts of the work.

    ``bands`` is (documents, bands); ``text_of(index)`` is called for members of candidate pairs only. The result
    depends on the documents' ids and texts alone, not on their order.
    """
    order = sorted(range(len(documents)), key=lambda i: (-documents[i].length, documents[i].id))
    rank = np.empty(len(documents), dtype=np.int64)
    rank[order] = np.arange(len(documents))
    found: list[Duplicate] = []
    gone = np.zeros(len(documents), dtype=bool)
    if config.exact:
        first: dict[bytes, int] = {}
        for index in order:
            survivor = first.setdefault(documents[index].key, index)
            if survivor != index:
                found.append(Duplicate(index, survivor, 1.0, True))
                gone[index] = True
    counts = {"candidate_pairs": 0, "verified_pairs": 0, "large_buckets": 0}
    if config.near and len(documents):
        alive = np.flatnonzero(~gone)
        pairs, counts["large_buckets"] = candidate_pairs(bands[alive], rank[alive], config.largest_bucket)
        counts["candidate_pairs"] = len(pairs)
        near, counts["verified_pairs"] = _verified(pairs, alive, rank, text_of, config)
        found += near
    moved = {item.index: item for item in found if not item.exact}
    # An exact copy of a text that itself left as a near duplicate is a near duplicate of that one's survivor.
    found = [
        replace(moved[item.survivor], index=item.index) if item.exact and item.survivor in moved else item
        for item in found
    ]
    return sorted(found, key=lambda item: documents[item.index].id), counts


def candidate_pairs(bands: Hashes, rank: np.ndarray, largest: int) -> tuple[np.ndarray, int]:
    """Pairs (better, worse) of rows that share a band, (pairs, 2) without repetition, and how many buckets were cut.

    Out of a bucket with more than ``largest`` rows, all are paired with its ``largest`` best only.
    """
    pieces: list[np.ndarray] = []
    cut = 0
    for band in range(bands.shape[1] if len(bands) else 0):
        order = np.lexsort((rank, bands[:, band]))
        values = bands[order, band]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
        sizes = np.diff(np.r_[starts, len(values)])
        for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
            members = order[start : start + size]
            if size > largest:
                cut += 1
            left, right = np.triu_indices(min(int(size), largest), 1, int(size))
            pieces.append(np.stack((members[left], members[right]), axis=1))
    if not pieces:
        return np.empty((0, 2), dtype=np.int64), cut
    return np.unique(np.concatenate(pieces), axis=0), cut


def _verified(
    pairs: np.ndarray, alive: np.ndarray, rank: np.ndarray, text_of: Callable[[int], str], config: DuplicatesConfig
) -> tuple[list[Duplicate], int]:
    """From best to worst: a document leaves for the best survivor that it resembles, else it is a survivor itself."""
    pairs = alive[pairs]
    pairs = pairs[np.lexsort((rank[pairs[:, 0]], rank[pairs[:, 1]]))]
    minhash = MinHash(config)
    known: dict[int, Hashes] = {}

    def set_of(index: int) -> Hashes:
        if index not in known:
            known[index] = minhash.shingles(text_of(index))
        return known[index]

    gone: set[int] = set()
    found: list[Duplicate] = []
    verified = 0
    for better, worse in pairs.tolist():
        if better in gone or worse in gone:
            continue
        a, b = set_of(better), set_of(worse)
        if min(len(a), len(b)) < config.jaccard * max(len(a), len(b)):
            continue
        similarity = jaccard(a, b)
        if similarity >= config.jaccard:
            verified += 1
            gone.add(worse)
            found.append(Duplicate(worse, better, similarity, False))
    return found, verified

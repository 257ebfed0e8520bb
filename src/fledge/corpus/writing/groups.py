"""The documents of token shards by source, language, kind and licence: what a mixture shares out, and the registry.

A source is the first part of a document's, up to a slash: the name of the input that it was read from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fledge.core.errors import DataError
from fledge.corpus.writing.shards import TokenShards

# Axis -> the column of the shards, which is also the field of a group.
AXES = {"sources": "source", "languages": "language", "kinds": "kind", "licences": "licence"}
UNKNOWN = "unknown"  # of a language, kind or licence that no one has told
_MOST_GROUPS = 4096  # more are no sources but documents, each with a name of its own


@dataclass(frozen=True)
class Group:
    """The documents of one source, language, kind and licence. ``tokens`` counts one as often as it is repeated."""

    source: str
    language: str
    kind: str
    licence: str
    documents: int
    tokens: int

    @property
    def name(self) -> str:
        return "/".join(self.on(axis) for axis in AXES)

    def on(self, axis: str) -> str:
        return str(getattr(self, AXES[axis]))


def group_documents(shards: TokenShards, sizes: np.ndarray) -> tuple[list[Group], np.ndarray, np.ndarray]:
    """The groups of the documents, by name; (documents,) the group of each; (documents,) how often it counts.
    ``sizes``: (documents,) tokens of each, as a batch counts them."""
    names, codes = zip(*(_names(shards, axis) for axis in AXES), strict=True)
    repeat = np.asarray(shards.column("repeat").to_numpy(), np.int64)
    if len(repeat) and repeat.min() < 0:
        raise DataError(f"{shards.folder}: a document's repeat is {repeat.min()}; it is 0 (left out) or more")
    shape = [max(1, len(axis)) for axis in names]
    found, group = np.unique(np.ravel_multi_index(codes, shape), return_inverse=True)
    if len(found) > _MOST_GROUPS:
        raise DataError(
            f"{shards.folder}: {len(found):,} groups of source, language, kind and licence, more than "
            f"{_MOST_GROUPS:,}: every document seems to have a source of its own. The first part of a source, up to a "
            "slash, names it"
        )
    documents, tokens = np.bincount(group), np.bincount(group, sizes * repeat)
    places = zip(*np.unravel_index(found, shape), strict=True)
    keys = [[axis[i] for axis, i in zip(names, place, strict=True)] for place in places]
    groups = [
        Group(source, language, kind, licence, int(count), int(total))
        for (source, language, kind, licence), count, total in zip(keys, documents, tokens, strict=True)
    ]
    order = sorted(range(len(groups)), key=lambda number: groups[number].name)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return [groups[number] for number in order], rank[group], repeat


def _names(shards: TokenShards, axis: str) -> tuple[list[str], np.ndarray]:
    """Names along an axis, and (documents,) the place of each document's."""
    column = shards.column(AXES[axis])
    if axis == "sources":
        column = pc.list_element(pc.split_pattern(column, "/", max_splits=1), 0)
    column = pc.if_else(pc.equal(pc.fill_null(column, ""), ""), UNKNOWN, column)
    if not len(column):
        return [], np.empty(0, np.int64)
    whole: Any = column.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # as some versions of Arrow give it
        whole = whole.chunk(0)
    return whole.dictionary.to_pylist(), whole.indices.to_numpy().astype(np.int64)


def registry(shards: Path) -> list[dict[str, Any]]:
    """Of every source: kinds, languages and licences with their tokens to train on; documents, tokens in all and how
    many of them are held out."""
    rows: dict[str, dict[str, Any]] = {}
    for split in ("train", "held_out"):
        text = TokenShards(shards, split)
        for group in group_documents(text, text.lengths)[0]:
            row = rows.setdefault(
                group.source, {"source": group.source, "documents": 0, "tokens": 0, "held_out": 0}
                | {axis: Counter() for axis in AXES if axis != "sources"}
            )  # fmt: skip
            row["documents"] += group.documents
            row["tokens" if split == "train" else "held_out"] += group.tokens
            for axis in AXES:
                if axis != "sources" and split == "train":
                    row[axis][group.on(axis)] += group.tokens
    return [
        {key: dict(sorted(value.items())) if isinstance(value, Counter) else value for key, value in rows[name].items()}
        for name in sorted(rows)
    ]


def licence_of(meta: Mapping[str, Any]) -> str:
    """What a document's metadata say of its licence, or nothing."""
    found = meta.get("licence") or meta.get("license")
    return found if isinstance(found, str) else ""


def table_of(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The registry as lines: the greatest source first. In tokens where the rows have them, else in characters."""
    rows = list(rows)
    unit = "tokens" if all("tokens" in row for row in rows) else "characters"
    rows.sort(key=lambda row: (-row[unit], row["source"]))
    lines = [f"{'source':<24}  {'kind':<16}  {'language':<20}  {'licence':<28}  {'documents':>10}  {unit:>14}"]
    for row in rows:
        cells = (_shares(row["kinds"]), _shares(row["languages"]), _shares(row["licences"]))
        lines.append(
            f"{printable(row['source']):<24.24}  {cells[0]:<16.16}  {cells[1]:<20.20}  {cells[2]:<28.28}  "
            f"{row['documents']:>10,}  {row[unit]:>14,}"
        )
    documents, size = (sum(row[key] for row in rows) for key in ("documents", unit))
    lines.append(f"{f'{len(rows)} sources':<94}  {documents:>10,}  {size:>14,}")
    return lines


def _shares(values: dict[str, int]) -> str:
    """``en 80%, zh 20%``; a name alone where there is only one."""
    total = sum(values.values())
    if len(values) == 1 or not total:
        return printable(", ".join(values))
    largest = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{printable(name)} {count / total:.0%}" for name, count in largest)


def printable(name: str) -> str:
    """A source is named by files and pages: its name must not move a terminal's cursor."""
    return "".join(sign if sign.isprintable() else "?" for sign in name)

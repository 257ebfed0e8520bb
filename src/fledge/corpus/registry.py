"""What a corpus is made of: of every source its documents and characters, by kind, language and licence.

A source is the name of the input that a document was read from, as in the shards that are made of the corpus
(`fledge.corpus.writing.groups`), where the same registry counts tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fledge.core.artefact import is_finished, read_manifest
from fledge.corpus.writing.groups import UNKNOWN, licence_of, registry

_AXES = ("kinds", "languages", "licences")


class Registry:
    """Counts documents as they are written."""

    def __init__(self) -> None:
        self._sources: dict[str, dict[str, Any]] = {}

    def add(self, documents: pa.Table) -> None:
        """A table of documents with their ``text``, ``source``, ``kind``, ``language`` and ``meta``."""
        names = ("source", "kind", "language", "meta")
        lengths = pc.utf8_length(documents["text"]).to_pylist()
        columns = (documents[name].to_pylist() for name in names)
        for source, kind, language, meta, length in zip(*columns, lengths, strict=True):
            row = self._sources.setdefault(
                source.partition("/")[0], {"documents": 0, "characters": 0} | {axis: Counter() for axis in _AXES}
            )
            row["documents"] += 1
            row["characters"] += length
            licence = licence_of(json.loads(meta)) if "licen" in meta else ""
            for axis, value in zip(_AXES, (kind, language, licence), strict=True):
                row[axis][value or UNKNOWN] += length

    def rows(self) -> list[dict[str, Any]]:
        """A row a source, by name; kinds, languages and licences with their characters."""
        return [
            {"source": name, **{k: dict(sorted(v.items())) if isinstance(v, Counter) else v for k, v in row.items()}}
            for name, row in sorted(self._sources.items())
        ]


def sources_of(folder: Path) -> list[dict[str, Any]]:
    """The registry of a corpus, in characters, or of token shards, in tokens. Raises `ArtefactError` for neither."""
    if is_finished(folder) and read_manifest(folder).get("stage") == "corpus":
        rows: list[dict[str, Any]] = read_manifest(folder)["metrics"]["sources"]
        return rows
    return registry(folder)

"""From the id of a document to where it came from, or to why it is not in the corpus."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fledge.core.errors import ArtefactError


def find(artefact: Path, id_: str) -> dict[str, Any]:
    """The row of a document, or of the ledger, with ``kept`` and ``file`` (where its source lies, if known).

    ``id_`` may be the beginning of an id. Raises `ArtefactError` where nothing, or more than one, matches.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from fledge.corpus import tables

    artefact = Path(artefact)
    found: list[dict[str, Any]] = []
    if not any((artefact / name).is_dir() for name in ("documents", "ledger")):
        raise ArtefactError(f"{artefact}: is no corpus (it has neither documents/ nor ledger/)")
    for name, kept in (("documents", True), ("ledger", False)):
        for path in tables.parts(artefact / name):
            table = pq.read_table(path, filters=pc.starts_with(pc.field("id"), id_))
            found += [{**row, "kept": kept, "part": path.name} for row in table.to_pylist()]
    if not found:
        raise ArtefactError(f"{artefact}: no document {id_!r}, neither kept nor dropped")
    if len({row["id"] for row in found}) > 1:
        shown = ", ".join(row["id"] for row in found[:4])
        raise ArtefactError(f"{artefact}: {len(found)} documents begin with {id_!r}: {shown} ...; give more of the id")
    return {**found[0], "file": _file(artefact, found[0]["source"])}


def describe(artefact: Path, id_: str) -> Iterator[str]:
    """The same as lines for a person; a duplicate is followed to the document that stayed."""
    row = find(artefact, id_)
    yield f"document {row['id']}"
    yield f"  source    {row['source']}, offset {row['offset']}"
    if row["file"]:
        yield f"  file      {row['file']}"
    if row["url"]:
        yield f"  url       {row['url']}"
    if row["language"]:
        yield f"  language  {row['language']}"
    if row["kept"]:
        yield f"  kept in   documents/{row['part']}, {len(row['text']):,} characters"
        meta = json.loads(row["meta"] or "{}")
        if meta:
            yield "  " + ", ".join(f"{key}: {value}" for key, value in sorted(meta.items()))
        return
    verb = "could not be read" if row["error"] else "dropped"
    yield f"  {verb} by   {row['stage']}.{row['rule']} (version {row['version']})"
    yield f"  value     {row['value']:.4g}, threshold {row['threshold']:.4g}"
    yield f"  excerpt   {row['excerpt']}"
    if row["stage"] == "contamination":
        yield f"  test item {row['survivor']}"
    elif row["survivor"]:
        yield f"  in favour of {row['survivor']}:"
        other, _, survivor = row["survivor"].rpartition("#")  # of another corpus, where duplicates.against named one
        yield from ("  " + line for line in describe(Path(other or artefact), survivor))


def _file(artefact: Path, source: str) -> str:
    """Where the source's file lay when the corpus was made; empty where that is not recorded."""
    path = artefact / "inputs.json"
    if not path.exists():
        return ""
    roots = json.loads(path.read_text(encoding="utf-8"))
    first, _, rest = source.partition("/")
    if first not in roots:
        return ""
    root = Path(roots[first])
    return str(root / rest) if rest else str(root)

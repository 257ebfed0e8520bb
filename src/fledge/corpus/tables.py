"""Documents and ledger as Parquet: their columns, atomic writing, reading by column."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fledge.corpus.pages import Drop, Page

DOCUMENTS = pa.schema(
    [
        ("id", pa.string()), ("text", pa.string()), ("language", pa.string()), ("source", pa.string()),
        ("offset", pa.int64()), ("url", pa.string()), ("kind", pa.string()), ("meta", pa.string()),
    ]
)  # fmt: skip
LEDGER = pa.schema(
    [
        ("id", pa.string()), ("source", pa.string()), ("offset", pa.int64()), ("url", pa.string()),
        ("language", pa.string()), ("stage", pa.string()), ("rule", pa.string()), ("version", pa.int32()),
        ("value", pa.float64()), ("threshold", pa.float64()), ("survivor", pa.string()), ("excerpt", pa.string()),
        ("error", pa.bool_()),
    ]
)  # fmt: skip


def documents_table(pages: Sequence[Page]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [] for name in DOCUMENTS.names}
    for page in pages:
        for name in ("id", "text", "language", "source", "offset", "url", "kind"):
            columns[name].append(getattr(page, name))
        columns["meta"].append(json.dumps(page.meta, ensure_ascii=False, sort_keys=True))
    return pa.table({name: clean(values) for name, values in columns.items()}, schema=DOCUMENTS)


def ledger_table(drops: Sequence[Drop]) -> pa.Table:
    columns = {name: clean([getattr(drop, name) for drop in drops]) for name in LEDGER.names}
    return pa.table(columns, schema=LEDGER)


def clean(values: list[Any]) -> list[Any]:
    """Half a surrogate pair is no UTF-8: such characters become U+FFFD where Arrow would refuse the column."""
    try:
        for value in values:
            if isinstance(value, str):
                value.encode("utf-8")
    except UnicodeEncodeError:
        return [v.encode("utf-8", "replace").decode("utf-8") if isinstance(v, str) else v for v in values]
    return values


def write_table(path: Path, table: pa.Table) -> None:
    """Parquet with zstd, beside its place and renamed; the same table gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    pq.write_table(table, temporary, compression="zstd", row_group_size=4096)
    os.replace(temporary, path)


def parts(folder: Path) -> list[Path]:
    """The Parquet files of ``documents`` or ``ledger``, in order."""
    return sorted(Path(folder).glob("*.parquet"))


def rows(folder: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """All rows of a folder of Parquet files, in order, without loading more than a few thousand at a time."""
    for path in parts(folder):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=2048, columns=list(columns) if columns else None):
            yield from batch.to_pylist()

"""What a shard comes to: its tables, by chunk while it is worked on, merged when it is whole.

A chunk is one file of Arrow streams, a stream a table, which appears when it is whole. The merge reads them in order,
a chunk at a time, so it needs the memory of some thousand documents, and its bytes do not depend on how often the
shard was begun.

A table more: a schema in `schemas`, its rows in `Results.tables`. It is then ``NAME.parquet`` in the shard's folder.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fledge.core.artefact import sync
from fledge.core.errors import ArtefactError
from fledge.corpus.chain import Chain
from fledge.corpus.copies.signatures import SignatureWriter, chunk_schema, signature_table
from fledge.corpus.pages import Drop, Page
from fledge.corpus.tables import DOCUMENTS, LEDGER, documents_table, ledger_table
from fledge.corpus.values import values_schema, values_table

Counts = dict[str, int]
COUNTS = ("read", "kept", "dropped", "errors", "masked", "repeated")
ROWS = 4096  # of a row group
TABLES = ("documents", "ledger", "values", "signatures", "counts")  # of a chunk, in the order of its file
_COUNTS = pa.schema([("name", pa.string()), ("count", pa.int64())])


def schemas(chain: Chain) -> dict[str, pa.Schema]:
    """Those of `TABLES`."""
    found = (DOCUMENTS, LEDGER, values_schema(chain.values), chunk_schema(), _COUNTS)
    return dict(zip(TABLES, found, strict=True))


class Results:
    """The results of a chunk's items, in their order. Raises `ArtefactError` where an item has none."""

    def __init__(self, results: Sequence[Page | Drop], items: int, chain: Chain) -> None:
        self.results, self.chain = results, chain
        self.pages = [result for result in results if isinstance(result, Page)]
        self.drops = [result for result in results if isinstance(result, Drop)]
        errors = sum(drop.error for drop in self.drops)
        masked = sum("masked" in page.meta for page in self.pages)
        repeated = sum("repeated" in page.meta for page in self.pages)
        found = (items, len(self.pages), len(self.drops) - errors, errors, masked, repeated)
        self.counts: Counts = dict(zip(COUNTS, found, strict=True))
        check_counts(self.counts, "a chunk")

    def tables(self) -> dict[str, pa.Table]:
        """What `schemas` names. Signatures are of the pages, in their order."""
        return {
            "documents": documents_table(self.pages),
            "ledger": ledger_table(self.drops),
            "values": values_table(self.results, self.chain.values),
            "signatures": signature_table(self.pages, self.chain.config.duplicates),
            "counts": pa.table({"name": list(self.counts), "count": list(self.counts.values())}, schema=_COUNTS),
        }


def check_counts(counts: Counts, of: str) -> None:
    """kept + dropped + errors == read, or what was made is not to be trusted."""
    if counts["kept"] + counts["dropped"] + counts["errors"] != counts["read"]:
        raise ArtefactError(
            f"{of} does not add up: {counts['kept']} kept + {counts['dropped']} dropped + {counts['errors']} errors "
            f"is not {counts['read']} read. This is a defect of fledge; please report it with the inputs."
        )


# ---- chunks ----------------------------------------------------------------------------------------------------------


def attempt() -> str:
    """A name of this process among all that may be at the same shard: one that a cluster takes for dead may live."""
    return f"{platform.node()}.{os.getpid()}"


def write_chunk(folder: Path, begin: int, end: int, tables: dict[str, pa.Table]) -> Path:
    """The chunk of the items from ``begin`` to ``end``. It is no loss if a machine fails before it is on the disk."""
    temporary = folder / f".{begin}.{attempt()}.tmp"
    try:
        with pa.OSFile(str(temporary), "wb") as file:
            for name in TABLES:
                with pa.ipc.new_stream(file, tables[name].schema) as stream:
                    stream.write_table(tables[name])
    except OSError:
        temporary.unlink(missing_ok=True)  # where a disk is full, no room is taken by what is of no use
        raise
    path = folder / f"chunk-{begin:09d}-{end:09d}.arrow"
    os.replace(temporary, path)
    return path


def read_chunk(path: Path) -> dict[str, pa.Table]:
    tables = {}
    with pa.OSFile(str(path), "rb") as file:
        for name in TABLES:
            with pa.ipc.open_stream(file) as stream:
                tables[name] = stream.read_all()
    return tables


def chunks(folder: Path) -> list[tuple[int, Path]]:
    """The finished chunks that follow one another from the first item on: (item behind the chunk, file)."""
    found: list[tuple[int, Path]] = []
    following = 0
    for path in sorted(folder.glob("chunk-*.arrow")):
        begin, end = (int(number) for number in path.stem.split("-")[1:])
        if begin == following and _is_whole(path):
            found.append((end, path))
            following = end
    return found


def _is_whole(path: Path) -> bool:
    """A machine that lost its power may leave a chunk's name without its content."""
    try:
        read_chunk(path)
    except (pa.ArrowException, OSError):
        return False
    return True


# ---- a whole shard ---------------------------------------------------------------------------------------------------


def merge(paths: Sequence[Path], chain: Chain, items: int, folder: Path) -> Counts:
    """Write a shard's files from its chunks, and return its counts.

    ``documents.parquet``, ``ledger.parquet``, ``values.parquet``, its signatures, ``counts.json``.
    """
    counts: Counts = dict.fromkeys(COUNTS, 0)
    with ExitStack() as stack:
        writers: dict[str, _Rows | SignatureWriter] = {
            name: stack.enter_context(_Rows(folder / f"{name}.parquet", schema))
            for name, schema in schemas(chain).items()
            if name not in ("signatures", "counts")
        }
        writers["signatures"] = stack.enter_context(SignatureWriter(folder, chain.config.duplicates))
        for path in paths:
            tables = read_chunk(path)
            for name, writer in writers.items():
                writer.add(tables[name])
            for row in tables["counts"].to_pylist():
                counts[row["name"]] += row["count"]
    check_counts({**counts, "read": items}, "a shard")
    (folder / "counts.json").write_text(json.dumps(counts))
    for file in folder.iterdir():
        sync(file)
    sync(folder)
    return counts


class _Rows:
    """A Parquet file written by row groups of `ROWS`, whatever the sizes of the tables that come in."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self.file = pq.ParquetWriter(path, schema, compression="zstd")
        self.waiting: list[pa.Table] = []

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None:
            for group in self._groups(1):
                self._write(group)
        self.file.close()

    def add(self, table: pa.Table) -> None:
        self.waiting.append(table)
        for group in self._groups(ROWS):
            self._write(group)

    def _groups(self, least: int) -> Iterator[pa.Table]:
        while sum(len(table) for table in self.waiting) >= least:
            table: Any = pa.concat_tables(self.waiting)
            self.waiting = [table.slice(ROWS)]
            yield table.slice(0, ROWS)

    def _write(self, group: pa.Table) -> None:
        # Arrow's pages end where its chunks end; one chunk gives the same bytes however the rows came.
        self.file.write_table(group.combine_chunks(), row_group_size=ROWS)

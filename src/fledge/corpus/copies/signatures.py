"""Signatures of documents: MinHash, its bands, and the files beside a shard that the global step reads.

A shard's ``signatures.parquet`` has a row a document: id, source's number, quality, length, the exact key (two
numbers), the bands, and where its shingles are in ``shingles.bin`` (uint32, little-endian, sorted sets one behind the
other). A finished corpus keeps the same of what stayed in ``signatures/``, with a sketch in place of the shingles: the
smallest ones, which are a fair sample of the set (bottom-k, Broder 1997).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fledge.core.errors import ArtefactError, ConfigError
from fledge.corpus.copies.shingle_loops import address, loops
from fledge.corpus.copies.shingles import Shingles, batches, shingles
from fledge.corpus.text.tokens import MULTIPLIER, Hashes, mix

if TYPE_CHECKING:
    import pyarrow as pa

    from fledge.corpus.copies.duplicates import DuplicatesConfig
    from fledge.corpus.pages import Page

VERSION = 1
FOLDER = "signatures"  # of a finished corpus
TABLE, SETS = "signatures.parquet", "shingles.bin"  # beside a shard
_SETTINGS = b"fledge.signatures"
_ALL_ONES = 0xFFFFFFFF


class MinHash:
    """Signatures of sets of shingles; E[share of equal entries] is the Jaccard similarity of two sets.

    The hash family is x -> a*x + b modulo 2^32, a odd, over shingles that are hashes already; a and b come from a
    fixed generator, so signatures can be compared between runs and machines.
    """

    def __init__(self, bands: int, rows: int) -> None:
        self.shape = (bands, rows)
        generator = np.random.Generator(np.random.PCG64(20240607))
        pairs = generator.integers(0, 2**32, size=(bands * rows, 2), dtype=np.uint32)
        self._a = np.ascontiguousarray(pairs[:, 0] | np.uint32(1))
        self._b = np.ascontiguousarray(pairs[:, 1])

    def signatures(self, sets: Shingles) -> np.ndarray:
        """(sets, bands*rows) uint32; all ones of an empty set."""
        compiled = loops()
        if compiled is None:
            return self.plain_signatures(sets)
        result = np.empty((len(sets), len(self._a)), dtype=np.uint32)
        values, ends = np.ascontiguousarray(sets.values), np.ascontiguousarray(sets.ends)
        compiled.fledge_minhash(
            address(values), address(ends), len(ends), address(self._a), address(self._b), len(self._a),
            address(result),
        )  # fmt: skip
        return result

    def plain_signatures(self, sets: Shingles) -> np.ndarray:
        """The same in numpy."""
        result = np.full((len(sets), len(self._a)), _ALL_ONES, dtype=np.uint32)
        for index in range(len(sets)):
            values = sets[index]
            for begin in range(0, len(values), 4096):  # bounds the memory of a long document
                part = self._a[:, None] * values[begin : begin + 4096] + self._b[:, None]
                np.minimum(result[index], part.min(axis=1), out=result[index])
        return result

    def bands(self, signatures: np.ndarray) -> Hashes:
        """(sets, bands) uint64: one number for each band of rows; an equal number makes a candidate pair."""
        bands, rows = self.shape
        entries = signatures.reshape(len(signatures), bands, rows).astype(np.uint64)
        values = np.broadcast_to(np.arange(bands, dtype=np.uint64), (len(signatures), bands))
        for row in range(rows):
            values = mix(values * MULTIPLIER + entries[:, :, row])
        return values


def similarity(a: np.ndarray, b: np.ndarray, a_size: int, b_size: int) -> float:
    """Jaccard |A ∩ B| / |A ∪ B| of two sorted sets without repetition, uint32.

    Where one is only the smallest members of a set of ``size``: the share of the smallest of the union that both have,
    an estimate with a deviation of sqrt(J (1 - J) / k) for k members.
    """
    if len(a) == a_size and len(b) == b_size:
        shared = _common(a, b)
        union = a_size + b_size - shared
        return shared / union if union else 1.0
    least = min(len(part) for part, size in ((a, a_size), (b, b_size)) if len(part) < size)
    a, b = a[:least], b[:least]
    smallest = np.union1d(a, b)[:least]
    return _common(a[: np.searchsorted(a, smallest[-1], side="right")], b) / len(smallest)


def _common(a: np.ndarray, b: np.ndarray) -> int:
    compiled = loops()
    if compiled is None:
        return len(np.intersect1d(a, b, assume_unique=True))
    return int(compiled.fledge_common(address(a), len(a), address(b), len(b)))


def settings(config: DuplicatesConfig) -> dict[str, Any]:
    """What two signatures must have in common to be compared."""
    shape = {name: getattr(config, name) for name in ("near", "bands", "rows", "shingle", "unit")}
    return {"version": VERSION, **shape}


def signature_table(pages: Sequence[Page], config: DuplicatesConfig) -> pa.Table:
    """A row for each page, in order, with its shingles: what `SignatureWriter` takes."""
    import pyarrow as pa

    from fledge.corpus.copies.duplicates import exact_key, source_of

    minhash = MinHash(config.bands, config.rows)
    texts = [page.text for page in pages]
    bands, sizes = [np.empty((0, config.bands), dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    values = [np.empty(0, dtype=np.uint32)]
    for some in batches(texts) if config.near else ():
        sets = shingles(some, config.shingle, config.unit)
        bands.append(minhash.bands(minhash.signatures(sets)))
        sizes.append(sets.sizes)
        values.append(sets.values)
    keys = np.frombuffer(b"".join(map(exact_key, texts)), dtype=">u8").reshape(len(pages), 2).astype(np.uint64)
    size = np.concatenate(sizes) if config.near else np.zeros(len(pages), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
    columns = {
        "id": [page.id for page in pages],
        "source": [source_number(source_of(page.source)) for page in pages],
        "quality": [page.quality for page in pages],
        "length": [len(text) for text in texts],
        "key_high": keys[:, 0], "key_low": keys[:, 1],
        "size": size,
        "bands": _lists(np.concatenate(bands) if config.near else np.empty((len(pages), 0), dtype=np.uint64)),
        "shingles": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(values))),
    }  # fmt: skip
    return pa.table(columns, schema=chunk_schema())


class SignatureWriter:
    """``folder``'s signatures.parquet and shingles.bin, from tables of `signature_table`, whatever their sizes."""

    def __init__(self, folder: Path, config: DuplicatesConfig) -> None:
        self.folder, self.config = folder, config
        self._tables: list[pa.Table] = []
        self._begin = 0  # shingles so far

    def __enter__(self) -> SignatureWriter:
        self._file = open(self.folder / SETS, "wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._file.close()
        if kind is None:
            self._write_table()

    def add(self, table: pa.Table) -> None:
        import pyarrow as pa

        held = table["shingles"].combine_chunks()
        self._file.write(held.flatten().to_numpy().astype("<u4").tobytes())
        size = table["size"].to_numpy()
        begin = self._begin + np.cumsum(size) - size
        self._begin += int(size.sum())
        self._tables.append(table.drop_columns("shingles").append_column("begin", pa.array(begin, pa.int64())))

    def _write_table(self) -> None:
        import pyarrow as pa

        tables = self._tables or [chunk_schema().empty_table().drop_columns("shingles").append_column(
            "begin", pa.array([], pa.int64()))]  # fmt: skip
        whole = pa.concat_tables(tables).combine_chunks()
        _write(self.folder / TABLE, {name: whole[name] for name in whole.column_names}, self.config)


def write_signatures(folder: Path, pages: Sequence[Page], config: DuplicatesConfig) -> None:
    """Of pages that are at hand all at once."""
    with SignatureWriter(folder, config) as writer:
        writer.add(signature_table(pages, config))


def source_number(name: str) -> int:
    import xxhash

    return xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass"))


def keep_signatures(folder: Path, stays: np.ndarray, config: DuplicatesConfig, out: Path) -> None:
    """Of a shard's signatures those of the documents that stay, with a sketch of each one's shingles."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(folder / TABLE).filter(pa.array(stays))
    begin, size = (table[name].to_numpy() for name in ("begin", "size"))
    held = np.minimum(size, config.sketch)
    ends = np.cumsum(held)
    values = np.memmap(folder / SETS, dtype="<u4", mode="r") if int(ends[-1:].sum()) else np.empty(0, dtype="<u4")
    places = np.repeat(begin - (ends - held), held) + np.arange(int(held.sum()))
    offsets = np.concatenate([[0], ends]).astype(np.int64)
    sketch = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.asarray(values[places], dtype=np.uint32)))
    columns = {name: table[name] for name in table.column_names if name != "begin"}
    _write(out, {**columns, "sketch": sketch}, config)


def open_signatures(corpus: Path, config: DuplicatesConfig) -> list[Path]:
    """The files of a finished corpus. Raises where it keeps none, or others than this configuration makes."""
    import pyarrow.parquet as pq

    files = sorted((Path(corpus) / FOLDER).glob("*.parquet"))
    if not files:
        raise ArtefactError(
            f"{corpus}: keeps no {FOLDER}/*.parquet, so nothing can be compared with it. It was made with "
            f"duplicates.sketch=0, or is no finished corpus: make it again."
        )
    for file in files:
        found = json.loads((pq.read_schema(file).metadata or {}).get(_SETTINGS, b"{}"))
        wanted = settings(config)
        if found != wanted:
            names = [name for name in wanted if found.get(name) != wanted[name]]
            shown = "; ".join(f"{name}: {found.get(name)!r} there, {wanted[name]!r} here" for name in names)
            raise ConfigError(f"duplicates.against: {corpus}: its signatures are of another kind ({shown})")
    return files


def chunk_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            ("id", pa.string()), ("source", pa.uint64()), ("quality", pa.float64()), ("length", pa.int64()),
            ("key_high", pa.uint64()), ("key_low", pa.uint64()), ("size", pa.int64()),
            ("bands", pa.large_list(pa.uint64())), ("shingles", pa.large_list(pa.uint32())),
        ]
    )  # fmt: skip


def _lists(values: np.ndarray) -> pa.Array:
    import pyarrow as pa

    offsets = np.arange(len(values) + 1, dtype=np.int64) * values.shape[1]
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))


def _write(path: Path, columns: dict[str, Any], config: DuplicatesConfig) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {field.name: field.type for field in chunk_schema()}
    types |= {"begin": pa.int64(), "sketch": pa.large_list(pa.uint32())}
    note = {_SETTINGS: json.dumps(settings(config), sort_keys=True).encode()}
    schema = pa.schema([(name, types[name]) for name in columns], metadata=note)
    table = pa.table(columns, schema=schema)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    # Hashes do not compress: dictionaries would only cost time.
    pq.write_table(table, temporary, compression="zstd", use_dictionary=False, row_group_size=16_384)
    os.replace(temporary, path)

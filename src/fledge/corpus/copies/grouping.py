"""The global step of duplicates: exact keys, bands -> candidate pairs -> verified pairs -> survivors, out of core.

Everything that grows with the corpus lives in a DuckDB database beside the shards, under a memory limit, and in the
shards' files of shingles; Python holds one bit a document and a cache of shingle sets. Documents are numbered by rank
(best first), so all orders below are orders of numbers, and the result depends on neither threads nor shards.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fledge.core.errors import ArtefactError, ConfigError
from fledge.corpus.copies.duplicates import DuplicatesConfig
from fledge.corpus.copies.signatures import SETS, TABLE, open_signatures, similarity

if TYPE_CHECKING:
    import duckdb

_NAMES = "id, source, quality, length, key_high, key_low, size, bands"
# Where a document's sketch begins among those of its file, and how many shingles it holds.
_SKETCHED = "sum(len(sketch)) OVER (ORDER BY file_row_number) - len(sketch), len(sketch)"
_BATCH = 50_000  # candidate pairs that Python holds
_OPEN = 64  # files of shingles

_LISTED = """CREATE TABLE listed (corpus INTEGER, shard INTEGER, row BIGINT, id VARCHAR, source UBIGINT, quality DOUBLE,
    length BIGINT, key_high UBIGINT, key_low UBIGINT, size BIGINT, bands UBIGINT[], start BIGINT, held BIGINT)"""
# The corpus of a document: 0 for this one, -1, -2, ... for those that it is compared with, which are better than it.
# A row_number without an order of its own numbers rows as they come: the sort below it goes to the disk where needed.
_RANKED = """CREATE TABLE documents AS SELECT row_number() OVER () - 1 AS rank, * FROM (
    SELECT * FROM listed ORDER BY corpus < 0 DESC, quality DESC, length DESC, id, corpus DESC, shard, row)"""
_EXACT = """CREATE TABLE exact AS SELECT rank, min(survivor) AS survivor FROM (
    SELECT d.rank, f.survivor FROM documents d JOIN (
        SELECT source, key_high, key_low, min(rank) AS survivor FROM documents WHERE corpus = 0
        GROUP BY ALL HAVING count(*) > 1) f USING (source, key_high, key_low) WHERE d.corpus = 0
    UNION ALL
    SELECT d.rank, o.rank FROM documents d JOIN documents o USING (key_high, key_low)
    WHERE d.corpus = 0 AND o.corpus < 0) GROUP BY rank HAVING min(survivor) < rank"""
_BANDED = """CREATE TABLE banded AS SELECT rank, corpus < 0 AS old, source, unnest(bands) AS band FROM documents d
    WHERE size > 0 AND NOT EXISTS (SELECT 1 FROM exact e WHERE e.rank = d.rank)"""
# Within this corpus a bucket is a band of one source; another corpus is compared with every source.
_BUCKETS = """CREATE TABLE buckets AS
    SELECT old, source, band, rank, row_number() OVER (PARTITION BY old, source, band ORDER BY rank) AS place FROM (
        SELECT b.* FROM banded b SEMI JOIN (
            SELECT source, band FROM banded WHERE NOT old GROUP BY ALL HAVING count(*) > 1) USING (source, band)
        WHERE NOT old
        UNION ALL
        SELECT rank, old, 0 AS source, band FROM banded b WHERE old
            AND EXISTS (SELECT 1 FROM banded n WHERE NOT n.old AND n.band = b.band))"""
_CANDIDATES = """CREATE TABLE candidates AS SELECT DISTINCT better, worse FROM (
    SELECT a.rank AS better, b.rank AS worse FROM buckets a JOIN buckets b USING (source, band)
    WHERE NOT a.old AND NOT b.old AND a.place < b.place AND a.place <= $largest
    UNION ALL
    SELECT o.rank, n.rank FROM buckets o JOIN banded n USING (band)
    WHERE o.old AND NOT n.old AND o.place <= $largest)"""
_PAIRS = """SELECT c.better, c.worse, b.corpus, b.shard, b.start, b.held, b.size, w.shard, w.start, w.size
    FROM candidates c JOIN documents b ON b.rank = c.better JOIN documents w ON w.rank = c.worse
    WHERE least(b.size, w.size) >= $jaccard * greatest(b.size, w.size) ORDER BY c.worse, c.better"""
# An exact copy of a text that itself left as a near duplicate is a near duplicate of that one's survivor.
_LEAVING = """CREATE TABLE leaving AS
    SELECT worse AS rank, better AS survivor, similarity, false AS exact FROM near
    UNION ALL
    SELECT e.rank, coalesce(n.better, e.survivor), coalesce(n.similarity, 1.0), n.worse IS NULL
    FROM exact e LEFT JOIN near n ON n.worse = e.survivor"""
_OUTCOME = """CREATE TABLE outcome AS SELECT * FROM (
    SELECT d.shard, d.row, s.id AS survivor, s.corpus, l.similarity, l.exact, 0::BIGINT AS cluster
    FROM leaving l JOIN documents d ON d.rank = l.rank JOIN documents s ON s.rank = l.survivor
    UNION ALL
    SELECT d.shard, d.row, NULL, 0, NULL, NULL, c.size
    FROM (SELECT survivor, count(*) + 1 AS size FROM leaving GROUP BY survivor) c
    JOIN documents d ON d.rank = c.survivor WHERE d.corpus = 0) ORDER BY shard, row"""


@dataclass(frozen=True)
class Leaving:
    """A document that leaves for another one, by its row in the shard. ``survivor`` is an id; where it is one of
    another corpus, that corpus's path and ``#`` stand before it."""

    row: int
    survivor: str
    similarity: float
    exact: bool


@dataclass
class Groups:
    """What the global step found. ``work`` counts candidate and verified pairs, cut buckets, clusters."""

    database: duckdb.DuckDBPyConnection
    against: Sequence[str]
    work: dict[str, int] = field(default_factory=dict)

    def of(self, shard: int) -> tuple[list[Leaving], dict[int, int]]:
        """Documents of a shard that leave, in order, and how many documents a survivor stands for, by its row."""
        found = self.database.execute(
            "SELECT row, survivor, corpus, similarity, exact, cluster FROM outcome WHERE shard = ? ORDER BY row",
            [shard],
        ).fetchall()
        leaving = [
            Leaving(row, f"{self.against[-corpus - 1]}#{survivor}" if corpus < 0 else survivor, value, exact)
            for row, survivor, corpus, value, exact, _ in found
            if survivor is not None
        ]
        return leaving, {row: cluster for row, survivor, *_, cluster in found if survivor is None}


class Grouping:
    """``with Grouping(...) as groups``: the step, in ``folder`` (made anew, removed at the end).

    ``memory``: MiB. Three quarters are DuckDB's, an eighth holds shingle sets.
    """

    def __init__(
        self, shards: Sequence[Path], config: DuplicatesConfig, folder: Path, memory: int = 256, threads: int = 1
    ) -> None:
        self.shards, self.config, self.folder = shards, config, folder
        # DuckDB wants about 100 MiB for each thread that sorts.
        self.memory, self.threads = memory, max(1, min(threads, memory // 128))

    def __enter__(self) -> Groups:
        import duckdb

        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._database = duckdb.connect(
            str(self.folder / "step.duckdb"),
            config={
                "memory_limit": f"{self.memory * 3 // 4}MiB", "threads": self.threads,
                "temp_directory": str(self.folder / "spilled"), "preserve_insertion_order": True,
                "autoinstall_known_extensions": False, "autoload_known_extensions": False,
            },
        )  # fmt: skip
        try:
            return self._group()
        except duckdb.OutOfMemoryException as error:
            self.__exit__()
            raise ConfigError(
                f"duplicates.memory={self.memory} (MiB) with {self.threads} threads is too little, or there is no room "
                f"beside {self.folder}: {error}"
            ) from None
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *problem: object) -> None:
        self._database.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _group(self) -> Groups:
        run, config = self._database.execute, self.config
        self._list()
        run(_RANKED)
        run("DROP TABLE listed")
        if config.exact:
            run(_EXACT)
        else:
            run("CREATE TABLE exact (rank BIGINT, survivor BIGINT)")
        run("CREATE TABLE near (worse BIGINT, better BIGINT, similarity DOUBLE)")
        work = {"candidate_pairs": 0, "compared_pairs": 0, "verified_pairs": 0, "large_buckets": 0}
        if config.near:
            run(_BANDED)
            run(_BUCKETS)
            run(_CANDIDATES, {"largest": config.largest_bucket})
            run("DROP TABLE banded")
            work["candidate_pairs"] = self._one("SELECT count(*) FROM candidates")
            work["large_buckets"] = self._one(
                f"SELECT count(*) FROM buckets WHERE place = {config.largest_bucket + 1}"
            )
            run("DROP TABLE buckets")
            work["compared_pairs"] = self._verify()
            work["verified_pairs"] = self._one("SELECT count(*) FROM near")
        run(_LEAVING)
        run(_OUTCOME)
        work["clusters"] = self._one("SELECT count(DISTINCT survivor) FROM leaving")
        return Groups(self._database, [str(path) for path in config.against], work)

    def _one(self, query: str) -> int:
        found = self._database.execute(query).fetchone()
        return int(found[0]) if found else 0

    def _list(self) -> None:
        """All documents, of the shards and of the corpora to compare with, into one table."""
        self._database.execute(_LISTED)
        self._sets = _Sets(self.memory * 2**20 // 8)
        source = "source" if self.config.across == "source" else "0"
        columns = _NAMES.replace("source", source)
        for number, shard in enumerate(self.shards):
            self._insert(shard / TABLE, 0, number, columns, "begin, size")
            self._sets.files[0, number] = shard / SETS
        for corpus, path in enumerate(self.config.against, 1):
            for number, file in enumerate(open_signatures(path, self.config)):
                self._insert(file, -corpus, number, _NAMES, _SKETCHED)
                self._sets.files[-corpus, number] = self._unpacked(file, corpus, number)

    def _insert(self, file: Path, corpus: int, shard: int, columns: str, place: str) -> None:
        self._database.execute(
            f"INSERT INTO listed SELECT {corpus}, {shard}, file_row_number, {columns}, {place} "
            "FROM read_parquet($file, file_row_number = true) ORDER BY file_row_number",
            {"file": glob.escape(str(file))},
        )

    def _unpacked(self, file: Path, corpus: int, number: int) -> Path:
        """The sketches of a file one behind the other, so that each is read by its place."""
        import pyarrow.parquet as pq

        path = self.folder / f"sketches-{corpus}-{number}.bin"
        with open(path, "wb") as to:
            for batch in pq.ParquetFile(file).iter_batches(4096, columns=["sketch"]):
                to.write(batch.column(0).flatten().to_numpy().astype("<u4").tobytes())
        return path

    def _verify(self) -> int:
        """From best to worst: a document leaves for the best survivor that it resembles, else it is a survivor itself.

        Fills the table ``near``; returns how many pairs were compared."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        config, sets = self.config, self._sets
        gone = bytearray(self._one("SELECT count(*) FROM documents") // 8 + 1)
        compared = 0
        path = self.folder / "near.parquet"
        schema = pa.schema([("worse", pa.int64()), ("better", pa.int64()), ("similarity", pa.float64())])
        with pq.ParquetWriter(path, schema) as writer:
            for batch in self._stream(_PAIRS, {"jaccard": config.jaccard}):
                found: dict[str, list[Any]] = {name: [] for name in schema.names}
                for better, worse, corpus, shard, start, held, size, *other in batch:
                    if gone[better >> 3] >> (better & 7) & 1 or gone[worse >> 3] >> (worse & 7) & 1:
                        continue
                    compared += 1
                    a = sets.read(corpus, shard, start, held)
                    b = sets.read(0, *other)
                    value = similarity(a, b, size, other[2])
                    if value >= config.jaccard:
                        gone[worse >> 3] |= 1 << (worse & 7)
                        for name, item in zip(schema.names, (worse, better, value), strict=True):
                            found[name].append(item)
                writer.write_table(pa.table(found, schema=schema))
        sets.close()
        self._database.execute("INSERT INTO near SELECT * FROM read_parquet(?)", [glob.escape(str(path))])
        return compared

    def _stream(self, query: str, values: dict[str, Any]) -> Iterator[list[tuple[Any, ...]]]:
        """The rows of a query, some at a time: DuckDB makes them as they are fetched."""
        found = self._database.execute(query, values)
        while rows := found.fetchmany(_BATCH):
            yield rows


class _Sets:
    """Shingle sets by their place in a file, with the last ones read held in memory, up to ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self.files: dict[tuple[int, int], Path] = {}
        self._most, self._held = most, 0
        self._known: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()
        self._open: OrderedDict[tuple[int, int], int] = OrderedDict()

    def read(self, corpus: int, shard: int, start: int, size: int) -> np.ndarray:
        """(size,) uint32, sorted"""
        key = (corpus, shard, start)
        found = self._known.get(key)
        if found is None:
            read = os.pread(self._file(corpus, shard), 4 * size, 4 * start)
            if len(read) != 4 * size:
                raise ArtefactError(f"{self.files[key[:2]]}: is shorter than its table says; make the shard again")
            found = np.frombuffer(read, dtype="<u4")
            self._known[key] = found
            self._held += found.nbytes + 200  # and the object around it
            while self._held > self._most and len(self._known) > 2:
                self._held -= self._known.popitem(last=False)[1].nbytes + 200
        else:
            self._known.move_to_end(key)
        return found

    def _file(self, corpus: int, shard: int) -> int:
        key = (corpus, shard)
        if key not in self._open:
            if len(self._open) >= _OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[key] = os.open(self.files[key], os.O_RDONLY)
        self._open.move_to_end(key)
        return self._open[key]

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])
        self._known.clear()

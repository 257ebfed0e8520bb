"""Token shards: Arrow files, memory-mapped, one row a document, with where each came from.

A folder holds ``train/*.arrow`` and ``held_out/*.arrow``. The column ``tokens`` is a list of int32 whose values lie one
behind the other, so a document is a view into the file; every document ends with ``<|endoftext|>``.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from fledge.core.errors import ArtefactError

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")
INFO = ("id", "source", "offset", "url", "language", "bytes", "copy", "kind", "repeat", "licence")
SCHEMA = pa.schema(
    [
        ("tokens", pa.large_list(pa.field("item", pa.int32(), nullable=False))),
        ("id", pa.string()), ("source", pa.string()), ("offset", pa.int64()), ("url", pa.string()),
        ("language", pa.string()), ("bytes", pa.int64()), ("copy", pa.int32()), ("kind", pa.string()),
        ("repeat", pa.int32()), ("licence", pa.string()),
    ]
)  # fmt: skip
_LATER: dict[str, Any] = {"kind": "", "repeat": 1, "licence": ""}  # where shards of an older make have no such column
_BATCH_TOKENS = 1 << 22


class TokenShards:
    """The documents of one split, by number.

    ``lengths`` are tokens, with the end token; ``byte_lengths`` the documents' UTF-8 bytes, without it: bits per byte
    is the sum of negative log2 probabilities over their sum. Raises `ArtefactError` where the folder holds no shards.
    """

    def __init__(self, folder: Path | str, split: Split = "train") -> None:
        self.folder = Path(folder)
        self.split = split
        files = sorted((self.folder / split).glob("*.arrow"))
        if not files and not (self.folder / split).is_dir():
            raise ArtefactError(f"{self.folder}: holds no token shards ({split}/*.arrow). Make them: fledge shards ...")
        self._batches: list[pa.RecordBatch] = []
        self._values: list[np.ndarray] = []
        self._offsets: list[np.ndarray] = []
        for file in files:
            with_file = pa.ipc.open_file(pa.memory_map(str(file)))
            for number in range(with_file.num_record_batches):
                self._add(with_file.get_batch(number))
        sizes = [len(batch) for batch in self._batches]
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        lengths = [np.diff(offsets) for offsets in self._offsets]
        bytes_ = [batch.column("bytes").to_numpy() for batch in self._batches]
        self.lengths: np.ndarray = np.concatenate([*lengths, np.empty(0, np.int64)]).astype(np.int64)
        self.byte_lengths: np.ndarray = np.concatenate([*bytes_, np.empty(0, np.int64)]).astype(np.int64)

    def _add(self, batch: pa.RecordBatch) -> None:
        tokens = batch.column("tokens")
        self._batches.append(batch)
        self._values.append(tokens.values.to_numpy(zero_copy_only=True))
        self._offsets.append(tokens.offsets.to_numpy(zero_copy_only=True))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        batch = int(np.searchsorted(self._starts, index, side="right")) - 1
        return batch, index - int(self._starts[batch])

    def tokens(self, index: int) -> np.ndarray:
        """(length,) int32, a read-only view into the file; the last is ``<|endoftext|>``."""
        batch, row = self._place(index)
        begin, end = self._offsets[batch][row], self._offsets[batch][row + 1]
        result: np.ndarray = self._values[batch][begin:end]
        return result

    def info(self, index: int) -> dict[str, Any]:
        """Where a document came from: id, source, offset, url, language, bytes, copy (0 unless it is written again),
        kind, licence, and repeat: how often a mixture counts it."""
        batch, row = self._place(index)
        return {name: self._column(batch, name)[row].as_py() for name in INFO}

    def column(self, name: str) -> pa.ChunkedArray:
        """One of ``INFO`` for all documents."""
        columns = [self._column(batch, name) for batch in range(len(self._batches))]
        return pa.chunked_array(columns, SCHEMA.field(name).type)

    def _column(self, batch: int, name: str) -> pa.Array:
        rows = self._batches[batch]
        if name in rows.schema.names or name not in _LATER:
            return rows.column(name)
        return pa.repeat(pa.scalar(_LATER[name], SCHEMA.field(name).type), len(rows))


class ShardWriter:
    """Writes one file of documents. It appears when the ``with`` block ends without an error.

    Record batches are cut at `_BATCH_TOKENS` tokens, so the bytes do not depend on the pieces that were added.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._temporary = path, path.with_name(f".{path.name}.tmp")
        self._pieces: list[tuple[np.ndarray, np.ndarray, pa.Table]] = []
        self._held = 0  # tokens in them

    def __enter__(self) -> ShardWriter:
        self._sink = pa.OSFile(str(self._temporary), "wb")
        self._writer = pa.ipc.new_file(self._sink, SCHEMA)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._write()
        self._writer.close()
        self._sink.close()
        if kind is None:
            os.replace(self._temporary, self._path)
        else:
            self._temporary.unlink()

    def add(self, tokens: np.ndarray, lengths: np.ndarray, rest: pa.Table) -> None:
        """Documents: their tokens one behind the other, int32; the tokens of each; the other columns of ``SCHEMA``."""
        ends = np.cumsum(lengths)
        begin = 0  # first document that is not added yet
        while begin < len(lengths):
            before = int(ends[begin - 1]) if begin else 0
            full = int(np.searchsorted(ends, before + _BATCH_TOKENS - self._held))  # with this one a batch is full
            stop = min(full + 1, len(lengths))
            piece = tokens[before : ends[stop - 1]]
            self._pieces.append((piece, lengths[begin:stop], rest.slice(begin, stop - begin)))
            self._held += len(piece)
            begin = stop
            if self._held >= _BATCH_TOKENS:
                self._write()

    def _write(self) -> None:
        if not self._pieces:
            return
        values, lengths = (np.concatenate([piece[i] for piece in self._pieces]) for i in (0, 1))
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        kind = SCHEMA.field("tokens").type
        tokens = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values, pa.int32()), type=kind)
        rest = pa.concat_tables([piece[2] for piece in self._pieces]).combine_chunks()
        columns = [rest.column(field.name).combine_chunks().cast(field.type) for field in list(SCHEMA)[1:]]
        self._writer.write_batch(pa.record_batch([tokens, *columns], schema=SCHEMA))
        self._pieces, self._held = [], 0


def is_held_out(id_: str, fraction: float, seed: int) -> bool:
    """Whether a document is kept for measuring: by a hash of its id, so it does not depend on the other documents."""
    digest = hashlib.blake2b(f"held-out {seed} {id_}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64

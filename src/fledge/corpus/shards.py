"""Token shards: Arrow files, memory-mapped, one row a document, with where each came from.

A folder holds ``train/*.arrow`` and ``held_out/*.arrow``. The column ``tokens`` is a list of int32 whose values lie one
behind the other, so a document is a view into the file; every document ends with ``<|endoftext|>``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from fledge.core.errors import ArtefactError

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")
INFO = ("id", "source", "offset", "url", "language", "bytes", "copy")
SCHEMA = pa.schema(
    [
        ("tokens", pa.large_list(pa.field("item", pa.int32(), nullable=False))),
        ("id", pa.string()), ("source", pa.string()), ("offset", pa.int64()), ("url", pa.string()),
        ("language", pa.string()), ("bytes", pa.int64()), ("copy", pa.int32()),
    ]
)  # fmt: skip
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
        """Where a document came from: id, source, offset, url, language, bytes, copy (0 unless it is repeated)."""
        batch, row = self._place(index)
        return {name: self._batches[batch].column(name)[row].as_py() for name in INFO}


def write_shard(path: Path, rows: Iterable[dict[str, Any]]) -> tuple[int, int, int]:
    """Write documents (the columns of ``SCHEMA``) atomically; returns (documents, tokens, bytes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    documents = tokens = size = 0
    with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for group in _groups(rows):
            documents += len(group)
            tokens += sum(len(row["tokens"]) for row in group)
            size += sum(row["bytes"] for row in group)
            writer.write_batch(_batch(group))
    os.replace(temporary, path)
    return documents, tokens, size


def _groups(rows: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    group: list[dict[str, Any]] = []
    held = 0
    for row in rows:
        group.append(row)
        held += len(row["tokens"])
        if held >= _BATCH_TOKENS:
            yield group
            group, held = [], 0
    if group:
        yield group


def _batch(group: list[dict[str, Any]]) -> pa.RecordBatch:
    lengths = np.array([len(row["tokens"]) for row in group], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    values = np.concatenate([np.asarray(row["tokens"], dtype=np.int32) for row in group])
    tokens = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(values), type=SCHEMA.field("tokens").type)
    rest = [pa.array([row[field.name] for row in group], field.type) for field in list(SCHEMA)[1:]]
    return pa.record_batch([tokens, *rest], schema=SCHEMA)


def is_held_out(id_: str, fraction: float, seed: int) -> bool:
    """Whether a document is kept for measuring: by a hash of its id, so it does not depend on the other documents."""
    digest = hashlib.blake2b(f"held-out {seed} {id_}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64

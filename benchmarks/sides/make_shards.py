"""Write token shards of random documents, for the figure of memory against the size of the data set.

    python benchmarks/sides/make_shards.py 1000000
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import work

from fledge.corpus.writing.shards import ShardWriter

DOCUMENT = 1000  # tokens
AT_ONCE = 1000  # documents


def write(path: Path, tokens: int) -> None:
    """One file of random documents, ``tokens`` in all."""
    rng = np.random.default_rng(5)
    total = tokens // DOCUMENT
    with ShardWriter(path) as writer:
        for first in range(0, total, AT_ONCE):
            numbers = range(first, min(first + AT_ONCE, total))
            count = len(numbers)
            rest = {
                "id": [f"{number:032x}" for number in numbers], "source": ["random"] * count, "offset": list(numbers),
                "url": pa.nulls(count, pa.string()), "language": ["en"] * count, "bytes": [4 * DOCUMENT] * count,
                "copy": [0] * count,
            }  # fmt: skip
            ids = rng.integers(3, work.IDS, count * DOCUMENT, np.int32)
            writer.add(ids, np.full(count, DOCUMENT, np.int64), pa.table(rest))


if __name__ == "__main__":
    for word in sys.argv[1:]:
        for split, count in (("train", int(word)), ("held_out", 10_000)):
            path = work.WORK / "shards" / word / split / "00000.arrow"
            if not path.exists():
                write(path, count)

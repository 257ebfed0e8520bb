"""Write token shards of random documents, for the figure of memory against the size of the data set.

    python benchmarks/sides/make_shards.py 1000000
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import work

from fledge.corpus.shards import write_shard


def shards_folder(tokens: int) -> Path:
    return work.WORK / "shards" / str(tokens)


def documents(tokens: int) -> Iterator[dict[str, Any]]:
    """Documents of 1,000 tokens."""
    rng = np.random.default_rng(5)
    for number in range(tokens // 1000):
        yield {"tokens": rng.integers(3, work.IDS, 1000, np.int32), "id": f"{number:032x}", "source": "random",
               "offset": number, "url": None, "language": "en", "bytes": 4000, "copy": 0}  # fmt: skip


if __name__ == "__main__":
    for word in sys.argv[1:]:
        for split, count in (("train", int(word)), ("held_out", 10_000)):
            path = shards_folder(int(word)) / split / "00000.arrow"
            if not path.exists():
                write_shard(path, documents(count))

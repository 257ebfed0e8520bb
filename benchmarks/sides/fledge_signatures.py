"""Ours: signatures of documents, on one core (see ../duplicates.py)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import prose
import work

from fledge.corpus.copies.duplicates import DuplicatesConfig
from fledge.corpus.copies.shingle_loops import loops
from fledge.corpus.copies.shingles import Shingles, batches, shingles
from fledge.corpus.copies.signatures import MinHash, write_signatures
from fledge.corpus.pages import Page


def main() -> None:
    arguments = prose.arguments()
    count = arguments.documents
    minhash, config = MinHash(14, 8), DuplicatesConfig()
    loops()
    shingles(["a table is made once"])
    texts = [] if arguments.what == "shingles" else prose.documents(count)
    pages = [Page(text, "crawl/a", i, "text") for i, text in enumerate(texts)]
    sets = prose.shingle_sets(count) if arguments.what == "shingles" else np.empty((0, 1), dtype=np.uint32)
    given = Shingles(sets.reshape(-1), np.arange(1, len(sets) + 1) * sets.shape[1])

    def step(_: int) -> None:
        if arguments.what == "files":
            with tempfile.TemporaryDirectory() as folder:
                write_signatures(Path(folder), pages, config)
        elif arguments.what == "text":
            for some in batches(texts):
                minhash.bands(minhash.signatures(shingles(some)))
        else:
            minhash.bands(minhash.signatures(given))

    seconds, first = work.timed(step, 5, 1)
    size = sum(map(len, texts)) / max(1, len(texts))
    packages = ("numpy", "pyarrow")
    work.report(count / work.median(seconds), first, packages, characters=round(size), compiled=loops() is not None)


if __name__ == "__main__":
    main()

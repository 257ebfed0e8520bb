"""The global step of duplicates over so many short documents, in a process of its own (see ../duplicates_growth.py)."""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np
import work

from fledge.corpus.copies.duplicates import DuplicatesConfig
from fledge.corpus.copies.grouping import Grouping
from fledge.corpus.copies.signatures import write_signatures
from fledge.corpus.pages import Page

SHARD = 10_000
WORDS = 60  # a document: 420 characters


def numbers(shard: int) -> np.ndarray:
    """(SHARD, WORDS): which words each document of a shard has, before copies are put among them."""
    return np.random.default_rng([37, shard]).integers(0, 26**3, (SHARD, WORDS))


def documents(shard: int) -> list[Page]:
    """A tenth are exact copies of the shard before, a fifth differ from one of its documents in one word: clusters
    stay as small as they are, whatever the number of shards."""
    rng = np.random.default_rng([41, shard])
    found = numbers(shard)
    if shard:
        copies = SHARD * 3 // 10
        found[:copies] = numbers(shard - 1)[rng.integers(copies, SHARD, copies)]
        near = np.arange(SHARD // 5)
        found[near, rng.integers(0, WORDS, len(near))] = rng.integers(0, 26**3, len(near))
    names = [work.word(i) for i in range(26**3)]
    texts = (" ".join(map(names.__getitem__, row)) for row in found.tolist())
    return [Page(text, "crawl/a", shard * SHARD + i, "text") for i, text in enumerate(texts)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("documents", type=int)
    parser.add_argument("--memory", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    config, digest = DuplicatesConfig(), hashlib.blake2b(digest_size=8)
    with tempfile.TemporaryDirectory() as name:
        folders = []
        signing = 0.0
        for shard in range(arguments.documents // SHARD):
            folders.append(Path(name) / str(shard))
            folders[-1].mkdir()
            pages = documents(shard)
            begun = time.perf_counter()
            write_signatures(folders[-1], pages, config)
            signing += time.perf_counter() - begun
        sizes = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
        begun, cpu = time.perf_counter(), time.process_time()
        with Grouping(folders, config, Path(name) / "step", arguments.memory, arguments.threads) as groups:
            left = 0
            for shard in range(len(folders)):
                leaving, clusters = groups.of(shard)
                left += len(leaving)
                digest.update(repr((leaving, sorted(clusters.items()))).encode())
            held = sum(path.stat().st_size for path in (Path(name) / "step").rglob("*") if path.is_file())
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    work.report(
        arguments.documents / seconds, 0.0, ("duckdb", "numpy"), seconds=round(seconds, 3),
        cpu=round(cpu, 3), signing=round(signing, 3),
        left=left, outcome=digest.hexdigest(), side_files_mib=sizes >> 20, database_mib=held >> 20, **groups.work,
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""The corpus task: input shard + configuration -> output shard + ledger shard. Pure and atomic.

A shard's result is a folder that appears when it is whole, so an interrupted run goes on with the shards that are
missing, and the bytes do not depend on the number of workers or their order.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from fledge.corpus.chain import Chain, ChainConfig
from fledge.corpus.duplicates import MinHash, exact_key
from fledge.corpus.inputs import Shard
from fledge.corpus.pages import Drop, Page
from fledge.corpus.read import Item, read_part
from fledge.corpus.tables import documents_table, ledger_table, write_table
from fledge.corpus.values import values_table

CHUNK = 256  # records that are judged together
_chains: dict[str, Chain] = {}  # one per process: the index of test items is built once


def run_shard(shard: Shard, config: ChainConfig, folder: Path) -> dict[str, int]:
    """Read and judge one shard; returns its counts (``read``, ``kept``, ``dropped``, ``errors``, ``masked``).

    Writes ``folder/shard-NNNNN/`` with the candidates (before duplicates), their MinHash bands and exact keys, and
    the ledger. A finished shard is not read again.
    """
    place = folder / f"shard-{shard.index:05d}"
    if place.exists():
        counts: dict[str, int] = json.loads((place / "counts.json").read_text())
        return counts
    chain = chain_of(config)
    minhash = MinHash(config.duplicates)
    results: list[Page | Drop] = []
    bands: list[np.ndarray] = []
    keys: list[bytes] = []
    found = itertools.chain.from_iterable(read_part(part, config.read) for part in shard.parts)
    for items in batched(itertools.islice(found, config.read.most_per_shard or None), CHUNK):
        judged = chain.judge(items)
        results += judged
        for page in (result for result in judged if isinstance(result, Page)):
            keys.append(exact_key(page.text))
            if config.duplicates.near:
                bands.append(minhash.bands(minhash.signature(minhash.shingles(page.text, page.hashes))))
            page.hashes = None
    pages = [result for result in results if isinstance(result, Page)]
    drops = [result for result in results if isinstance(result, Drop)]
    counts = {
        "read": len(pages) + len(drops),
        "kept": len(pages),
        "dropped": sum(not drop.error for drop in drops),
        "errors": sum(drop.error for drop in drops),
        "masked": sum("masked" in page.meta for page in pages),
    }
    partial = folder / f".shard-{shard.index:05d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_table(partial / "documents.parquet", documents_table(pages))
    write_table(partial / "ledger.parquet", ledger_table(drops))
    write_table(partial / "values.parquet", values_table(results, chain.values))
    width = config.duplicates.bands if config.duplicates.near else 0
    np.save(partial / "bands.npy", np.array(bands, dtype=np.uint64).reshape(len(pages), width))
    np.save(partial / "keys.npy", np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(len(pages), 16))
    (partial / "counts.json").write_text(json.dumps(counts))
    os.replace(partial, place)
    return counts


def run_shards(
    shards: Sequence[Shard], config: ChainConfig, folder: Path, workers: int, on_done: Callable[[dict[str, int]], Any]
) -> None:
    """All shards, in this process or in spawned ones. The first failure stops the run and is raised here."""
    if workers <= 1 or len(shards) <= 1:
        for shard in shards:
            on_done(run_shard(shard, config, folder))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(shards)), mp_context=context) as pool:
        # The largest first: a big shard at the end would leave the others waiting for it.
        waiting = {pool.submit(run_shard, s, config, folder) for s in sorted(shards, key=lambda s: -s.bytes)}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    on_done(future.result())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of ``size`` items, the last of what is left."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def chain_of(config: ChainConfig) -> Chain:
    """The chain of this process: built once, while the configuration stays the same."""
    key = config.model_dump_json()
    if key not in _chains:
        _chains.clear()
        _chains[key] = Chain(config)
    return _chains[key]

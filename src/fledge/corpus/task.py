"""The corpus task: input shard + configuration -> output shard + ledger shard. Pure and atomic.

A shard's result is a folder that appears when it is whole, so an interrupted run goes on with the shards that are
missing, and the bytes do not depend on the number of workers or their order.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from fledge.corpus.chain import Chain, ChainConfig
from fledge.corpus.inputs import Shard
from fledge.corpus.pages import Drop, Page
from fledge.corpus.read import read_part
from fledge.corpus.repeats import clean_page
from fledge.corpus.signatures import write_signatures
from fledge.corpus.tables import documents_table, ledger_table, write_table

_chains: dict[str, Chain] = {}  # one per process: the index of test items is built once


def run_shard(shard: Shard, config: ChainConfig, folder: Path) -> dict[str, int]:
    """Read and judge one shard; returns its counts (``read``, ``kept``, ``dropped``, ``errors``, ``masked``).

    Writes ``folder/shard-NNNNN/`` with the candidates (before duplicates), their signatures and shingles, and the
    ledger. A finished shard is not read again.
    """
    place = folder / f"shard-{shard.index:05d}"
    if place.exists():
        counts: dict[str, int] = json.loads((place / "counts.json").read_text())
        return counts
    chain = chain_of(config)
    pages: list[Page] = []
    drops: list[Drop] = []
    for part in shard.parts:
        for item in read_part(part, config.read):
            result = clean_page(chain(item), config.duplicates.repeats)
            if isinstance(result, Drop):
                drops.append(result)
            else:
                pages.append(result)
    counts = {
        "read": len(pages) + len(drops),
        "kept": len(pages),
        "dropped": sum(not drop.error for drop in drops),
        "errors": sum(drop.error for drop in drops),
        "masked": sum("masked" in page.meta for page in pages),
        "repeated": sum("repeated" in page.meta for page in pages),
    }
    partial = folder / f".shard-{shard.index:05d}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_table(partial / "documents.parquet", documents_table(pages))
    write_table(partial / "ledger.parquet", ledger_table(drops))
    write_signatures(partial, pages, config.duplicates)
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


def chain_of(config: ChainConfig) -> Chain:
    """The chain of this process: built once, while the configuration stays the same."""
    key = config.model_dump_json()
    if key not in _chains:
        _chains.clear()
        _chains[key] = Chain(config)
    return _chains[key]

"""Who works on the shards: local processes, or tasks on a Ray cluster. The bytes are the same."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from fledge.core.config import Config
from fledge.core.machine import cores

if TYPE_CHECKING:
    from fledge.corpus.reading.inputs import Shard
    from fledge.corpus.running.watch import Job, Worker


class EngineConfig(Config):
    """Who works. Only the time limit is part of what the corpus is: the ledger names it."""

    engine: Literal["local", "ray"] = Field(
        "local", exclude=True, description="processes here, or Ray tasks (extra: cluster) on machines that share `out`"
    )
    workers: int = Field(
        default_factory=cores, ge=1, exclude=True, description="processes, or tasks at a time on a cluster that is ours"
    )
    ray_address: str = Field("", exclude=True, description="of a running Ray cluster; empty: one is started here")
    seconds_per_document: float = Field(
        60.0, gt=0, description="of the processor's time; a document that takes more is an error, `timeout`"
    )


@dataclass(frozen=True)
class Step:
    """Progress: a chunk (``items``, ``bytes`` since the last), or with ``counts`` a shard, and what it came to."""

    items: int = 0
    bytes: int = 0
    counts: dict[str, int] | None = None
    earlier: bool = False  # it was finished by an earlier run


OnStep = Callable[[Step], Any]


def run_shards(shards: Sequence[Shard], job: Job, config: EngineConfig, on_step: OnStep) -> None:
    """All shards that are not finished yet. The first failure stops the run and is raised here."""
    from fledge.corpus.running.task import finished

    missing = []
    for shard in shards:
        counts = finished(job.folder, shard)
        if counts is None:
            missing.append(shard)
        else:
            on_step(Step(bytes=size_of(shard), counts=counts, earlier=True))
    # The largest first: a big shard at the end would leave the others waiting for it.
    missing.sort(key=lambda shard: -size_of(shard))
    if not missing:
        return
    if config.engine == "ray":
        from fledge.corpus.running.cluster import run_on_ray

        run_on_ray(missing, job, config.workers, config.ray_address, on_step)
    else:
        _run_here(missing, job, min(config.workers, len(missing)), on_step)


def size_of(shard: Shard) -> int:
    """In bytes; 0 where a file has gone since it was found, which is a matter for the ledger."""
    try:
        return shard.bytes
    except OSError:
        return 0


def _run_here(shards: Sequence[Shard], job: Job, workers: int, on_step: OnStep) -> None:
    """Each worker process has a thread here that watches it. One worker is a process too, for the time limit."""
    from fledge.corpus.running.watch import Worker

    queue: SimpleQueue[Shard] = SimpleQueue()
    for shard in shards:
        queue.put(shard)
    lock, stop = threading.Lock(), threading.Event()

    def report(step: Step) -> None:
        with lock:
            on_step(step)

    with ThreadPoolExecutor(workers, thread_name_prefix="corpus") as pool:
        waiting = {pool.submit(_work_off, queue, Worker(job, stop), report) for _ in range(workers)}
        try:
            while waiting:
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
        finally:
            stop.set()


def _work_off(queue: SimpleQueue[Shard], worker: Worker, report: OnStep) -> None:
    """Shards from the queue until it is empty or the run is stopped."""
    from fledge.corpus.running.watch import Stopped

    try:
        while not worker.stop.is_set():
            try:
                shard = queue.get_nowait()
            except Empty:
                break
            _run_watched(shard, worker, report)
    except Stopped:
        pass
    finally:
        worker.close(at_once=worker.stop.is_set())


def _run_watched(shard: Shard, worker: Worker, report: OnStep) -> None:
    """One shard, its chunks reported as they come."""
    seen = 0

    def step(items: int, bytes_: int) -> None:
        nonlocal seen
        report(Step(items, max(0, bytes_ - seen)))
        seen = max(seen, bytes_)

    counts = worker.run(shard, step)
    report(Step(bytes=max(0, size_of(shard) - seen), counts=counts))

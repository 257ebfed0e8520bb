"""The corpus task as Ray core tasks, on a cluster that runs or on one that is started here.

A task is one shard, done as locally: by a worker under watch (watch.py), started on the node by the task.
A node that dies takes its tasks along; Ray starts them on another one, where they go on behind their last chunk. So
the folder of the run and the inputs must be seen under the same paths by all nodes: shared storage is the contract.
Every node needs fledge with the same versions.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fledge.core import errors
from fledge.core.errors import ConfigError, FledgeError
from fledge.corpus.chain import ChainConfig
from fledge.corpus.reading.inputs import Shard
from fledge.corpus.running.engine import OnStep, Step, size_of
from fledge.corpus.running.results import Counts
from fledge.corpus.running.watch import Job, Worker
from fledge.corpus.running.worker import shard_from_plain, shard_to_plain

RETRIES = 20  # of a shard whose node or process is lost
_WINDOW = 4  # tasks handed in for each that can run at once


def run_on_ray(shards: Sequence[Shard], job: Job, workers: int, address: str, on_step: OnStep) -> None:
    """All shards, in the order given. Raises what the first failing one raises.

    With an ``address`` the cluster decides how many run at once; without, a cluster of ``workers`` CPUs is started on
    this machine and ended behind the run.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported anywhere
    try:
        import ray
    except ImportError:
        raise ConfigError("engine=ray needs Ray: pip install 'fledge[cluster]'") from None
    ours = not ray.is_initialized()
    if ours and address:
        ray.init(address=address, log_to_driver=False)
    elif ours:
        # For itself alone: not to be seen from other machines.
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.1")
    try:
        _run(ray, shards, job, on_step)
    finally:
        if ours:
            ray.shutdown()


def _run(ray: Any, shards: Sequence[Shard], job: Job, on_step: OnStep) -> None:
    # SPREAD: a node's share of the work is bounded by its CPUs, not by which node was asked first.
    task = ray.remote(num_cpus=1, max_retries=RETRIES, scheduling_strategy="SPREAD")(_task)
    common = json.dumps(
        {"config": job.config.model_dump_json(), "folder": str(job.folder.absolute()), "seconds": job.seconds}
    )
    window = _WINDOW * max(1, int(ray.cluster_resources().get("CPU", 1)))
    left = iter(shards)
    running: dict[Any, Shard] = {}
    try:
        while True:
            while len(running) < window and (shard := next(left, None)) is not None:
                parts = tuple(replace(part, path=part.path.absolute()) for part in shard.parts)
                absolute = shard_to_plain(replace(shard, parts=parts))
                running[task.remote(common, json.dumps(absolute))] = shard
            if not running:
                return
            ready, _ = ray.wait(list(running), num_returns=1)
            for reference in ready:
                shard = running.pop(reference)
                counts = _counts(json.loads(ray.get(reference)))
                on_step(Step(counts["read"], size_of(shard), counts))
    except BaseException:
        for reference in running:
            ray.cancel(reference, force=True)
        raise


def _task(common: str, shard: str) -> str:
    """On a node. Results and the user's errors as JSON: an error that travels as an exception loses its class."""
    values = json.loads(common)
    folder = Path(values["folder"])
    if not folder.is_dir():
        text = f"{os.uname().nodename}: {folder} is not there. engine=ray needs storage that all nodes see."
        return json.dumps({"error": "DataError", "text": text})
    job = Job(ChainConfig.model_validate_json(values["config"]), folder, values["seconds"])
    worker = Worker(job)
    try:
        return json.dumps({"done": worker.run(shard_from_plain(json.loads(shard)), lambda items, bytes_: None)})
    except FledgeError as error:
        return json.dumps({"error": type(error).__name__, "text": str(error)})
    finally:
        worker.close()


def _counts(message: dict[str, Any]) -> Counts:
    if "error" in message:
        raise getattr(errors, message["error"])(message["text"])
    counts: Counts = message["done"]
    return counts

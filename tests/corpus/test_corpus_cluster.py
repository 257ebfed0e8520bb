"""The engine on Ray: two nodes on this machine, real raylets, one of them killed in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from corpus_pages import ENGLISH, variant
from engine_run import digest_of

from fledge.core.errors import ConfigError, DataError
from fledge.core.readers import write_jsonl
from fledge.stages import corpus

RUN = str(Path(__file__).with_name("engine_run.py"))


def config_of(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"inputs": [str(folder)], **changes}


def test_without_ray_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    write_jsonl(tmp_path / "a.jsonl", [{"text": ENGLISH}])
    with pytest.raises(ConfigError, match=r"pip install 'fledge\[cluster\]'"):
        corpus.run(corpus.Config.model_validate(config_of(tmp_path / "a.jsonl", engine="ray")), tmp_path / "out")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "in"
    folder.mkdir()
    for name in range(8):
        write_jsonl(folder / f"{name:02}.jsonl", [{"text": variant(ENGLISH, name * 100 + i)} for i in range(100)])
    return folder


@pytest.fixture(scope="module")
def quiet(inputs: Path) -> Path:
    out = inputs.with_name("quiet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fledge.corpus.reading.inputs.SHARD_BYTES", 1)
        corpus.run(corpus.Config.model_validate(config_of(inputs, workers=2)), out)
    return out


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head and one node more, one CPU each."""
    pytest.importorskip("ray", reason="Ray is not installed: the extra `cluster`")
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # Ray turns 127.0.0.1 into an outer address
    node = {"num_cpus": 1, "object_store_memory": 100 << 20, "node_ip_address": "127.0.0.2"}
    running = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    running.second = running.add_node(**node)
    yield running
    running.shutdown()


def start(config: dict[str, Any], out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, RUN, json.dumps(config), str(out)])


def busy_below(process: psutil.Process) -> list[psutil.Process]:
    """The corpus workers that a raylet's tasks have started."""
    found = []
    for child in process.children(recursive=True):
        try:
            if "fledge.corpus.running.worker" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


@pytest.mark.long
def test_a_node_that_is_killed_costs_nothing(cluster: Any, inputs: Path, quiet: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    raylets = [
        psutil.Process(node.all_processes["raylet"][0].process.pid) for node in (cluster.head_node, cluster.second)
    ]
    run = start(config_of(inputs, engine="ray", ray_address=cluster.address), out)
    deadline = time.monotonic() + 120
    while not (
        all(busy := [busy_below(raylet) for raylet in raylets]) and [*out.parent.glob(".out.partial/.shards/s*")]
    ):
        assert time.monotonic() < deadline
        assert run.poll() is None
        time.sleep(0.02)
    raylets[1].kill()
    assert not psutil.wait_procs(busy[1], timeout=20)[1], "the node's work ends with it"
    assert run.wait(300) == 0
    assert digest_of(out) == digest_of(quiet)


@pytest.mark.long
def test_errors_keep_their_class_and_a_killed_driver_goes_on(
    cluster: Any, inputs: Path, quiet: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    config = config_of(inputs, engine="ray", ray_address=cluster.address)
    run = start(config, out)
    deadline = time.monotonic() + 120
    while not [*out.parent.glob(".out.partial/.shards/s*")]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    run.kill()
    run.wait()
    assert start(config, out).wait(300) == 0
    assert digest_of(out) == digest_of(quiet)
    (tmp_path / "bad.jsonl").write_text("{oops\n")
    changes = {"engine": "ray", "ray_address": cluster.address, "on_error": "fail"}
    with pytest.raises(DataError, match=r"bad\.jsonl:1"):
        corpus.run(corpus.Config.model_validate(config_of(tmp_path / "bad.jsonl", **changes)), tmp_path / "bad")

"""The engine: whatever happens to the workers, the bytes are those of the quiet run, and nothing goes unmentioned."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from corpus_pages import ENGLISH, html, record, variant, write_warc
from engine_run import WORKER, digest_of

from fledge.core.artefact import read_manifest
from fledge.core.errors import ArtefactError, DataError
from fledge.core.readers import write_jsonl
from fledge.corpus import tables
from fledge.corpus.chain import ChainConfig
from fledge.corpus.reading.inputs import Shard, discover
from fledge.corpus.running import task, watch
from fledge.corpus.running.results import chunks
from fledge.stages import corpus

RUN = str(Path(__file__).with_name("engine_run.py"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files: 60, 50 and 40 records, one of them no JSON, and one file of 30 HTML pages."""
    folder = tmp_path_factory.mktemp("engine") / "in"
    folder.mkdir()
    for name, begin, count in (("a", 0, 60), ("b", 60, 50), ("c", 110, 40)):
        write_jsonl(folder / f"{name}.jsonl", [{"text": variant(ENGLISH, i)} for i in range(begin, begin + count)])
    with (folder / "b.jsonl").open("a") as file:
        file.write("{oops\n")
    pages = [record(f"http://site.example/{i}", html(variant(ENGLISH, i))) for i in range(150, 180)]
    write_warc(folder / "d.warc.gz", pages)
    return folder


def config_of(*folders: Path, **changes: Any) -> corpus.Config:
    return corpus.Config.model_validate({"inputs": [str(folder) for folder in folders], **changes})


def start(config: corpus.Config, out: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A run in a process of its own, whose workers work slowly enough to be met at it."""
    values = config.model_dump_json(exclude_none=True)
    given = json.loads(values) | {"workers": config.workers, "engine": config.engine}
    return subprocess.Popen(
        [sys.executable, RUN, json.dumps(given), str(out)], env={**os.environ, **environment}, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs have it ignored
    )  # fmt: skip


def workers_of(child: subprocess.Popen[bytes], seconds: float = 30) -> list[psutil.Process]:
    """Its workers, as soon as there are some."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and child.poll() is None:
        found = psutil.Process(child.pid).children(recursive=True)
        if found:
            return found
        time.sleep(0.02)
    return []


def wait_for_chunk(out: Path, seconds: float = 30) -> None:
    """Until some chunk is finished."""
    deadline = time.monotonic() + seconds
    shards = out.with_name(f".{out.name}.partial") / ".shards"
    while not any(shards.glob(".shard-*/chunk-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_bytes_depend_on_neither_workers_nor_order_nor_chunks(
    inputs: Path, quiet_by_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fledge.corpus.reading.inputs.SHARD_BYTES", 1)
    corpus.run(config_of(inputs, workers=1), tmp_path / "one")
    assert digest_of(tmp_path / "one") == digest_of(quiet_by_file)
    shards = discover([str(inputs)], 1).shards
    for shard in shards:
        task.run_shard(shard, ChainConfig(), tmp_path / "forward")
    monkeypatch.setattr(task, "CHUNK_ITEMS", 7)
    for shard in reversed(shards):
        task.run_shard(shard, ChainConfig(), tmp_path / "backward")
    assert len(digest_of(tmp_path / "forward")) == 6 * len(shards)
    assert digest_of(tmp_path / "forward") == digest_of(tmp_path / "backward")


def all_gone(processes: list[psutil.Process]) -> bool:
    return not psutil.wait_procs(processes, timeout=5)[1]


@pytest.fixture(scope="module")
def quiet(inputs: Path) -> Path:
    """The run that nothing happens to: all shards in one, by one worker, in chunks of 256."""
    out = inputs.with_name("quiet")
    corpus.run(config_of(inputs, workers=1), out)
    return out


@pytest.fixture(scope="module")
def quiet_by_file(inputs: Path) -> Path:
    """The same with a shard for each file."""
    out = inputs.with_name("quiet-by-file")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fledge.corpus.reading.inputs.SHARD_BYTES", 1)
        corpus.run(config_of(inputs, workers=2), out)
    return out


# ---- chunks ----------------------------------------------------------------------------------------------------------


def one_shard(folder: Path) -> Shard:
    (shard,) = discover([str(folder)], 1).shards
    return shard


def test_a_shard_goes_on_behind_its_last_chunk(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "CHUNK_ITEMS", 16)
    shard, config = one_shard(inputs), ChainConfig()
    counts = task.run_shard(shard, config, tmp_path / "quiet")
    assert counts == {"read": 181, "kept": 180, "dropped": 0, "errors": 1, "masked": 0, "repeated": 0}
    judged: list[int] = []
    judge = task.judge

    def dies_late(chain: Any, items: Any) -> Any:
        if len(judged) == 5:
            raise MemoryError
        judged.append(len(items))
        return judge(chain, items)

    with monkeypatch.context() as patch:
        patch.setattr(task, "judge", dies_late)
        patch.setattr(task, "_judged_alone", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            task.run_shard(shard, config, tmp_path / "halted")
    draft = task.draft_of(tmp_path / "halted", shard)
    assert [end for end, _ in chunks(draft)] == [16, 32, 48, 64, 80]
    (draft / "chunk-000000064-000000080.arrow").write_bytes(b"")  # as a machine without power leaves it
    judged.clear()
    monkeypatch.setattr(task, "judge", lambda chain, items: judged.append(len(items)) or judge(chain, items))
    assert task.run_shard(shard, config, tmp_path / "halted") == counts
    assert judged == [16] * 7 + [5], "what was judged is not judged again"
    assert digest_of(tmp_path / "halted") == digest_of(tmp_path / "quiet")
    assert not draft.exists()
    judged.clear()
    assert task.run_shard(shard, config, tmp_path / "halted") == counts
    assert not judged


def test_large_documents_make_chunks_of_fewer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "CHUNK_BYTES", 1000)
    sizes: list[int] = []
    judge = task.judge
    monkeypatch.setattr(task, "judge", lambda chain, items: sizes.append(len(items)) or judge(chain, items))
    write_jsonl(tmp_path / "a.jsonl", [{"text": "x" * size} for size in (10, 989, 1, 1, 2000, 5, 5)])
    task.run_shard(one_shard(tmp_path / "a.jsonl"), ChainConfig(), tmp_path / "out")
    assert sizes == [3, 2, 2]


def test_an_item_that_vanishes_is_noticed(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = task.judge
    monkeypatch.setattr(task, "judge", lambda chain, items: judge(chain, items)[:-1])
    with pytest.raises(ArtefactError, match=r"179 kept \+ 0 dropped \+ 1 errors is not 181 read"):
        task.run_shard(one_shard(inputs), ChainConfig(), tmp_path)


def test_a_page_that_raises_costs_itself_and_is_named(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = task.judge

    def raises(chain: Any, items: Any) -> Any:
        if any(item.source and item.offset == 0 for item in items):
            raise ValueError("no page is like this one")
        return judge(chain, items)

    monkeypatch.setattr(task, "judge", raises)
    counts = task.run_shard(one_shard(inputs / "a.jsonl"), ChainConfig(), tmp_path)
    assert counts["errors"] == 1
    (row,) = pq.read_table(tmp_path / "shard-00000" / "ledger.parquet").to_pylist()
    assert (row["stage"], row["rule"], row["offset"]) == ("extract", "exception", 0)
    assert "ValueError: no page is like this one" in row["excerpt"]
    with pytest.raises(DataError, match=r"a\.jsonl, offset 0: ValueError"):
        task.run_shard(one_shard(inputs / "a.jsonl"), ChainConfig(on_error="fail"), tmp_path / "fail")


# ---- documents that do harm ------------------------------------------------------------------------------------------


@pytest.fixture
def harmful(tmp_path: Path) -> Path:
    """Poisonous pages among good ones."""
    folder = tmp_path / "harm"
    folder.mkdir()
    texts = [variant(ENGLISH, i) for i in range(200, 240)]
    texts[5], texts[20] = "HANGS " + texts[5], "CRASHES " + texts[20]
    write_jsonl(folder / "bad.jsonl", [{"text": text} for text in texts])
    return folder


@pytest.fixture
def hurt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(watch, "COMMAND", WORKER)
    monkeypatch.setattr("fledge.corpus.reading.inputs.SHARD_BYTES", 1)
    monkeypatch.setenv("FLEDGE_TEST_MARK", str(tmp_path / "mark"))


def test_a_poisonous_document_costs_itself_alone(hurt: None, harmful: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    corpus.run(config_of(harmful, workers=1, seconds_per_document=1), out)
    metrics = read_manifest(out)["metrics"]
    assert (metrics["read"], metrics["kept"], metrics["errors"]) == (40, 38, 2)
    errors = {row["rule"]: row for row in tables.rows(out / "ledger")}
    assert set(errors) == {"timeout", "crash"}
    assert [errors["timeout"][key] for key in ("stage", "threshold", "error")] == ["extract", 1.0, True]
    assert [errors["crash"][key] for key in ("stage", "threshold", "error")] == ["extract", 3.0, True]
    lines = (harmful / "bad.jsonl").read_bytes()
    assert lines[errors["timeout"]["offset"] :].startswith(b'{"text": "HANGS')
    assert lines[errors["crash"]["offset"] :].startswith(b'{"text": "CRASHES')


@pytest.mark.long
def test_a_file_whose_reading_hangs_costs_its_rest_and_one_crash_nothing(hurt: None, tmp_path: Path) -> None:
    folder = tmp_path / "harm"
    folder.mkdir()
    texts = [variant(ENGLISH, i) for i in range(200, 220)]
    write_jsonl(folder / "a.jsonl", [{"text": text} for text in texts[:10]])
    write_jsonl(folder / "b-stuck.jsonl", [{"text": text} for text in texts[10:]])
    write_jsonl(folder / "c.jsonl", [{"text": "FALTERS " + variant(ENGLISH, 220)}])
    corpus.run(config_of(folder, workers=2, seconds_per_document=1), tmp_path / "out")
    (error,) = tables.rows(tmp_path / "out" / "ledger")
    assert (error["source"], error["stage"], error["rule"]) == ("harm/b-stuck.jsonl", "read", "timeout")
    assert "given up behind offset" in error["excerpt"]
    kept = [row["text"] for row in tables.rows(tmp_path / "out" / "documents")]
    assert len(kept) == 14
    assert sum(text.startswith("FALTERS") for text in kept) == 1


def test_on_error_fail_names_the_document_that_hangs(hurt: None, harmful: Path, tmp_path: Path) -> None:
    config = config_of(harmful / "bad.jsonl", workers=1, seconds_per_document=0.5, on_error="fail")
    offset = (harmful / "bad.jsonl").read_bytes().index(b'{"text": "HANGS')
    with pytest.raises(DataError, match=rf"bad\.jsonl, offset {offset}: took longer than 0\.5 seconds"):
        corpus.run(config, tmp_path / "out")
    assert not psutil.Process().children()


def test_a_worker_that_never_works_is_an_error(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "COMMAND", [sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(ArtefactError, match=r"shard 0 .*a\.jsonl.* died \(exit status 3\) 10 times"):
        corpus.run(config_of(inputs, workers=1), tmp_path / "out")


# ---- kills -----------------------------------------------------------------------------------------------------------


def test_kills_of_a_worker_and_of_the_parent(inputs: Path, quiet_by_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = config_of(inputs, workers=2)
    child = start(config, out, FLEDGE_TEST_PAUSE="0.02")
    wait_for_chunk(out)
    workers = workers_of(child)
    assert len(workers) == 2
    workers[0].kill()
    while len(again := workers_of(child)) < 2 or workers[0] in again:
        time.sleep(0.02)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert all_gone(again), "workers end with their parent"
    assert not out.exists()
    assert start(config, out).wait() == 0
    assert digest_of(out) == digest_of(quiet_by_file)


def test_ctrl_c_leaves_no_process_and_a_run_that_goes_on(inputs: Path, quiet_by_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = config_of(inputs, workers=2)
    child = start(config, out, FLEDGE_TEST_PAUSE="0.02")
    wait_for_chunk(out)
    workers = workers_of(child)
    os.killpg(child.pid, signal.SIGINT)  # as the terminal does
    assert child.wait(10) != 0
    assert all_gone(workers)
    left = [path.name for path in (tmp_path / ".out.partial" / ".shards").glob(".shard-*/chunk-*")]
    assert left
    assert start(config, out).wait() == 0
    assert digest_of(out) == digest_of(quiet_by_file)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_kills_at_random(seed: int, inputs: Path, quiet_by_file: Path, tmp_path: Path) -> None:
    """Workers and parents, at moments of chance, until the run is through."""
    chance = random.Random(seed)
    out = tmp_path / "out"
    config = config_of(inputs, workers=chance.choice((1, 2, 3)))
    killed = 0
    for pause in (*[0.03] * 12, 0.0):  # the last attempt is let alone
        child = start(config, out, FLEDGE_TEST_PAUSE=str(pause))
        time.sleep(chance.uniform(0.2, 3) if pause else 0)
        while pause and child.poll() is None:
            workers = psutil.Process(child.pid).children()
            victim = chance.choice([*workers, None])
            if victim is None:
                child.kill()
                assert child.wait() == -signal.SIGKILL
                assert all_gone(workers)
            else:
                victim.kill()
            killed += 1
            time.sleep(chance.uniform(0.0, 2))
        assert child.wait() in (0, -signal.SIGKILL)
    assert killed >= 2
    assert digest_of(out) == digest_of(quiet_by_file)


# ---- the machine -----------------------------------------------------------------------------------------------------


def test_a_full_disk_stops_the_run_and_nothing_is_lost(
    inputs: Path, quiet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit on the size of files does what a full disk does: the write fails, with part of it written."""
    script = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    script += "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))\n"
    script += "from fledge.corpus.running.worker import main; main()"
    with monkeypatch.context() as patch:
        patch.setattr(watch, "COMMAND", [sys.executable, "-c", script])
        with pytest.raises(ArtefactError, match=r"File too large\. Make room and give the same command again"):
            corpus.run(config_of(inputs, workers=1), tmp_path / "out")
    assert not list((tmp_path / ".out.partial").rglob("*.tmp"))
    corpus.run(config_of(inputs, workers=1), tmp_path / "out")
    assert digest_of(tmp_path / "out") == digest_of(quiet)


def test_an_unreadable_file_costs_itself(inputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.jsonl").write_bytes((inputs / "a.jsonl").read_bytes())
    gone = Shard(0, (*one_shard(folder).parts,))
    (folder / "good.jsonl").unlink()  # between the listing and the reading
    counts = task.run_shard(gone, ChainConfig(), tmp_path / "out")
    assert (counts["read"], counts["errors"]) == (1, 1)
    (row,) = pq.read_table(tmp_path / "out" / "shard-00000" / "ledger.parquet").to_pylist()
    assert row["rule"] == "file"

"""Pretraining with a mixture: shares hold all along the run, its order can be taken up anywhere, all is accounted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stages_small import Small
from test_stages_resume import finish, kill_after, weights

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.corpus.writing.mixture import Mixture, Plan
from fledge.corpus.writing.shards import ShardWriter, TokenShards
from fledge.stages.lineage import describe
from fledge.stages.mixing import MixedOrder
from fledge.stages.pretrain import Documents

CONTEXT, BATCH = 32, 256
# source, language, kind, documents, repeat
SOURCES = (("web/a", "en", "html", 300, 1), ("web/b", "zh", "html", 100, 1), ("wiki", "en", "text", 60, 2),
           ("tiny", "en", "text", 2, 1))  # fmt: skip


def make_shards(folder: Path, sources: tuple[tuple[str, str, str, int, int], ...] = SOURCES) -> TokenShards:
    generator = np.random.default_rng(5)
    rows = [(*source[:3], source[4], int(generator.integers(2, 90))) for source in sources for _ in range(source[3])]
    rows = [rows[place] for place in generator.permutation(len(rows))]
    lengths = np.array([row[4] for row in rows])
    names = [f"{number:04d}" for number in range(len(rows))]
    rest = pa.table(
        {
            "id": names, "source": [row[0] for row in rows], "offset": list(range(len(rows))), "url": names,
            "language": [row[1] for row in rows], "bytes": lengths, "copy": np.zeros(len(rows), np.int32),
            "kind": [row[2] for row in rows], "repeat": [row[3] for row in rows],
            "licence": ["GPL-3.0-only" if row[0] == "wiki" else "" for row in rows],
        }
    )  # fmt: skip
    (folder / "held_out").mkdir(parents=True)
    with ShardWriter(folder / "train" / "a.arrow") as writer:
        writer.add(generator.integers(0, 500, int(lengths.sum())).astype(np.int32), lengths, rest)
    return TokenShards(folder)


def source_of(shards: TokenShards, steps: int = 100, seed: int = 0, **values: Any) -> Documents:
    mixture = build(Mixture, {"floor": 0, **values})
    return Documents(shards, CONTEXT, BATCH, seed, mixture, steps)


def read(source: Documents, steps: int) -> list[list[tuple[str, int]]]:
    """Document and offset of every piece, batch by batch."""
    return [[e.segments[0].origin for e in source.next(step, {}).examples] for step in range(steps)]


def plan_of(source: Documents) -> Plan:
    assert isinstance(source.order, MixedOrder)
    return source.order.plan


def tokens_by_source(source: Documents) -> dict[str, int]:
    assert isinstance(source.order, MixedOrder)
    found: dict[str, int] = {}
    for row in source.order.account():
        found[row["source"]] = found.get(row["source"], 0) + row["tokens"]
    return found


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> TokenShards:
    return make_shards(tmp_path_factory.mktemp("mixing") / "shards")


def test_shares_hold_in_every_stretch_of_the_run(shards: TokenShards) -> None:
    source = source_of(shards, sources={"wiki": 0.3}, languages={"zh": 0.4})
    taken = {"wiki": 0, "zh": 0, "all": 0}
    info = {str(row["id"]): row for row in map(shards.info, range(len(shards)))}
    for step in range(100):
        for example in source.next(step, {}).examples:
            row = info[example.segments[0].origin[0]]
            taken["all"] += example.tokens
            taken["wiki"] += example.tokens * (row["source"] == "wiki")
            taken["zh"] += example.tokens * (row["language"] == "zh")
        # fair queueing: no group is ever further from its due than a piece for each group
        assert abs(taken["wiki"] - 0.3 * taken["all"]) <= 4 * CONTEXT
        assert abs(taken["zh"] - 0.4 * taken["all"]) <= 4 * CONTEXT
    assert isinstance(source.order, MixedOrder)
    assert sum(row["tokens"] for row in source.order.account()) == taken["all"]
    assert taken["all"] == pytest.approx(source.order.plan.total, rel=0.01)


def test_every_piece_comes_as_often_as_its_epochs_and_repeat_say(shards: TokenShards) -> None:
    """In two epochs of everything every document comes twice; one that is repeated twice, four times."""
    source = source_of(shards)
    assert isinstance(source.order, MixedOrder)
    each = [len(queue.pieces) for queue in source.order.queues]
    wiki = next(queue for queue in source.order.queues if queue.name.startswith("wiki"))
    counts = np.bincount([wiki.take() for _ in range(2 * len(wiki.pieces))])
    assert set(counts[wiki.pieces].tolist()) == {4}
    lengths = np.array([len(shards.tokens(i)) for i in range(len(shards))])
    repeat = shards.column("repeat").to_numpy()
    assert sum(each) == int((-(-(lengths - 1) // (CONTEXT - 1)) * repeat).sum())


def test_a_licence_is_left_out(shards: TokenShards) -> None:
    source = source_of(shards, licences={"GPL-3.0-only": 0})
    read(source, 10)
    assert tokens_by_source(source)["wiki"] == 0


def test_the_cap_holds_to_the_piece(shards: TokenShards) -> None:
    source = source_of(shards, steps=120, sources={"tiny": 0.5}, max_epochs=3)
    read(source, 120)
    assert isinstance(source.order, MixedOrder)
    tiny = next(row for row in source.order.account() if row["source"] == "tiny")
    assert tiny["epochs"] == 3.0
    assert tiny["tokens"] == 3 * tiny["available"]
    assert tiny["cut_by_epochs"] == pytest.approx(source.order.plan.total / 2 - 3 * tiny["available"], abs=1)


def test_a_tiny_source_is_read_in_a_short_run(shards: TokenShards) -> None:
    source = source_of(shards, steps=8, floor=2e-4)
    read(source, 8)
    assert tokens_by_source(source)["tiny"] >= 2


@pytest.mark.parametrize("step", [0, 1, 17, 60, 99])
@pytest.mark.parametrize("steps", [100, 97])  # with 97, the last three find every group read max_epochs times
def test_taken_up_anywhere(shards: TokenShards, step: int, steps: int) -> None:
    total = sum(group.tokens for group in plan_of(source_of(shards)).groups)
    epochs = 1.003 * plan_of(source_of(shards, steps)).total / total if steps == 97 else 30
    values: dict[str, Any] = {"sources": {"wiki": 0.4, "tiny": 0.02}, "max_epochs": epochs, "steps": steps}
    whole = source_of(shards, **values)
    rest = read(whole, step)
    state = json.loads(json.dumps(whole.state()))
    rest = read(whole, 100 - step)
    again = source_of(shards, **values)
    again.load_state(state)
    assert read(again, 100 - step) == rest
    assert again.state() == whole.state()
    assert tokens_by_source(again) == tokens_by_source(whole)


def test_the_order_within_a_group_is_its_own(shards: TokenShards, tmp_path: Path) -> None:
    """Another source more, other shares, another length of the run: wiki's documents come in the order they came in."""

    def wiki(source: Documents) -> list[tuple[str, int]]:
        assert isinstance(source.order, MixedOrder)
        queue = next(queue for queue in source.order.queues if queue.name.startswith("wiki"))
        return [source.piece(queue.take()).segments[0].origin for _ in range(queue.limit)]

    first = wiki(source_of(shards, sources={"wiki": 0.2}))
    assert wiki(source_of(shards, steps=50, sources={"wiki": 0.5})) == first
    assert wiki(source_of(shards, seed=1, sources={"wiki": 0.2})) != first
    fewer = make_shards(tmp_path / "shards")  # the same documents
    assert wiki(source_of(fewer, sources={"wiki": 0.2, "tiny": 0.0})) == first


def test_shards_of_an_older_make(shards: TokenShards, tmp_path: Path) -> None:
    """Without kind and repeat: one kind, each document once."""
    from fledge.corpus.writing import shards as module

    fields = [field for field in module.SCHEMA if field.name not in ("kind", "repeat", "licence")]
    batch = shards._batches[0].select([field.name for field in fields])
    (tmp_path / "train").mkdir()
    with pa.OSFile(str(tmp_path / "train" / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    old = TokenShards(tmp_path)
    assert old.info(3)["repeat"] == 1
    source = source_of(old, sources={"wiki": 0.3})
    read(source, 5)
    assert isinstance(source.order, MixedOrder)
    assert {row["kind"] for row in source.order.account()} == {"unknown"}
    assert source_of(old).order.plan.groups[-1].tokens * 2 == source_of(shards).order.plan.groups[-1].tokens


def test_too_little_for_the_run(shards: TokenShards) -> None:
    with pytest.raises(ConfigError, match="3 epochs of the documents that take part are only"):
        source_of(shards, steps=1000, max_epochs=3)


def mixed(small: Small) -> dict[str, Any]:
    return {"mixture": {"languages": {"zh": 0.7}}}


def test_in_the_manifest_and_printed(small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics = small.run("pretrain", tmp_path / "model", **mixed(small))["metrics"]
    rows = metrics["mixture"]
    assert sum(row["tokens"] for row in rows) == metrics["tokens"]
    zh = sum(row["tokens"] for row in rows if row["language"] == "zh")
    assert zh / metrics["tokens"] == pytest.approx(0.7, abs=0.02)
    told = capsys.readouterr().err
    assert "70.00% asked" in told
    assert "to be trained on" in told
    first = list(describe(tmp_path / "model", 1, 5))
    assert "document" in first[2]


def test_an_unknown_name_is_refused_before_training(small: Small, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mixture\.languages: the shards hold no 'zhh'; did you mean 'zh'"):
        small.run("pretrain", tmp_path / "model", mixture={"languages": {"zhh": 0.7}})


@pytest.mark.long
def test_a_kill(small: Small, tmp_path: Path) -> None:
    finish(small, "pretrain", tmp_path / "quiet", **mixed(small))
    kill_after(small, "pretrain", tmp_path / "killed", 3, **mixed(small))
    finish(small, "pretrain", tmp_path / "killed", **mixed(small))
    assert weights(tmp_path / "killed") == weights(tmp_path / "quiet")
    accounts = [
        json.loads((tmp_path / name / "manifest.json").read_text(encoding="utf-8"))["metrics"]["mixture"]
        for name in ("killed", "quiet")
    ]
    assert accounts[0] == accounts[1]


@pytest.mark.long
def test_the_language_of_the_target_gets_the_tokens(small: Small, tmp_path: Path) -> None:
    """`fledge mixture` on the small world: its Chinese held-out pages ask for Chinese, its English ones for English."""
    from fledge.scaling import mixture as stage

    values = {
        "shards": small.at("shards"), "tokenizer": small.at("tokenizer"), "axis": "languages", "proxies": 12,
        "steps": 15, "batch_tokens": 512, "context": 64, "dtype": "float32", "held_out_tokens": 1500, "confirmed": 0,
        "simulated": 2000, "averaged": 16, "tokens": 8000, "names": ["en", "zh"],
        "targets": [{"name": "zh", "languages": ["zh"]}, {"name": "en", "languages": ["en"], "weight": 0.01}],
    }  # fmt: skip
    stage.run(build(stage.Config, values), tmp_path / "mixture")
    metrics = json.loads((tmp_path / "mixture" / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    assert dict(zip(metrics["names"], metrics["found"], strict=True))["zh"] > 0.7
    assert metrics["by_target"]["zh"]["found"]["zh"] > 0.7
    assert metrics["by_target"]["en"]["found"]["en"] > 0.7
    assert metrics["spearman"] > 0.8

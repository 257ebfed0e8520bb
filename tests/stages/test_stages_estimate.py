"""Forecasts of single stages, on what lies there already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from stages_small import Small

from fledge.commands.stage import run_stage
from fledge.core.artefact import read_manifest
from fledge.core.bench import Bench
from fledge.core.config import build
from fledge.model.hf import load_config
from fledge.model.tiles import Tiles
from fledge.stages import dpo, grpo, online_dpo, ppo, pretrain, sft

QUICK = Bench(measure=False)


def test_rows_of_files_that_are_there(small: Small, tmp_path: Path) -> None:
    made = sft.estimate(build(sft.Config, small.config("sft", epochs=2)), QUICK)
    assert made["steps"] == 30  # 120 conversations, twice, by 8
    run = small.run("sft", tmp_path / "out", epochs=2)["metrics"]
    assert run["steps"] == made["steps"]
    assert made["tokens"] == pytest.approx(run["tokens"], rel=0.6)
    pairs = dpo.estimate(build(dpo.Config, small.config("dpo", replay=None, epochs=2)), QUICK)
    assert pairs["steps"] in (15, 20)  # a reference's tokens count a third more
    assert pairs["seconds"] > 0


def test_shards_that_are_there(small: Small) -> None:
    tokens = read_manifest(Path(small.at("shards")))["metrics"]["tokens"]
    made = pretrain.estimate(build(pretrain.Config, small.config("pretrain", tokens=0, epochs=2)), QUICK)
    assert made["tokens"] == 2 * tokens
    assert made["parameters"] == load_config(small.at("pretrain")).parameters


def test_no_time_where_nothing_is_known(
    small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = str(tmp_path / "nowhere")
    values = small.config("sft", data=[f"{nowhere}.jsonl"])
    for facts in (
        sft.estimate(build(sft.Config, values), QUICK),
        pretrain.estimate(build(pretrain.Config, small.config("pretrain", shards=nowhere, tokens=0)), QUICK),
    ):
        assert "seconds" not in facts
        assert facts["parameters"] > 0
    switch = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(switch, "")  # so that it is as before afterwards
    monkeypatch.delenv(switch)
    monkeypatch.setenv("FLEDGE_KEEP_ALLOCATOR", "1")
    run_stage(
        "sft",
        None,
        [f"model={small.at('pretrain')}", f"data=[{nowhere}.jsonl]", "optimizer.lr=1e-3"],
        None,
        True,
        False,
    )
    assert "time ?" in capsys.readouterr().out
    assert switch in os.environ, "a dry run measures with the switches that the run has"


def test_rollouts_are_measured_with_their_optimizer(small: Small) -> None:
    config = build(grpo.Config, small.config("grpo", optimizer={"name": "muon", "lr": 1e-3}))
    bench = Bench(seconds=0.0)
    grpo.estimate(config, bench)
    assert ["optimizer='muon'" in key for key in bench._known if key.startswith("train")] == [True]


def test_ppo_is_two_models_and_its_rollouts(small: Small) -> None:
    """8 steps are 2 rollouts of 8 answers. Each answer: two models twice, as much text, and what is read before."""
    plain = ppo.estimate(build(ppo.Config, small.config("ppo", replay=None, ptx=None)), QUICK)
    assert (plain["steps"], plain["tokens"]) == (8, 2 * 8 * 12 * 5)
    beside = ppo.estimate(build(ppo.Config, small.config("ppo", replay=None)), QUICK)
    assert beside["tokens"] == 2 * 8 * 12 * 7
    assert beside["seconds"] > plain["seconds"] > 0
    rollout = {"prompts": 4, "samples": 2, "max_new_tokens": 12}
    alone = grpo.estimate(build(grpo.Config, small.config("grpo", replay=None, rollout=rollout)), QUICK)
    assert plain["memory_bytes"] > 1.5 * alone["memory_bytes"]


def test_long_runs_are_measured_as_they_will_be_compiled(small: Small) -> None:
    for choice in ("off", "on"):
        bench = Bench(seconds=0.0)
        sft.estimate(build(sft.Config, small.config("sft", compile=choice)), bench)
        assert [key.split()[-1] for key in bench._known if key.startswith("train")] == [str(choice == "on")]
        assert not Tiles.on  # a forecast leaves the process as it was


def test_online_dpo_samples_all_and_trains_on_two(small: Small) -> None:
    """6 steps of 12 answers. The pair is read by the reference before; merging keeps tau, carry and a start."""

    def made(**changes: Any) -> dict[str, Any]:
        values = small.config("online-dpo", replay=None, **{"optimizer": {"lr": 1e-3}, **changes})
        return online_dpo.estimate(build(online_dpo.Config, values), QUICK)

    plain, best = made(), made(mode="rs_sft")
    assert plain["tokens"] == pytest.approx(6 * 12 * 12 * 2 / 3 * 4 / 3)
    assert best["tokens"] == pytest.approx(6 * 12 * 12 / 3)
    weights = plain["parameters"]
    assert plain["memory_bytes"] - best["memory_bytes"] == 4 * weights  # the reference
    for changes, each in (({}, 12), ({"store": "bfloat16"}, 10), ({"carry": False}, 8)):
        merged = made(optimizer={"lr": 1e-3, "merging": small.merging(**changes)})
        assert merged["memory_bytes"] - plain["memory_bytes"] == each * weights


def test_rollouts_are_also_read_before(small: Small) -> None:
    plain, both = (
        grpo.estimate(build(grpo.Config, small.config("grpo", replay=None, updates=2, beta=beta)), QUICK)
        for beta in (0.0, 0.1)
    )
    assert plain["tokens"] == pytest.approx(4 * 12 * 12 * 4 / 3)  # 8 steps are 4 rollouts of 12 answers
    assert both["tokens"] == pytest.approx(4 * 12 * 12 * 5 / 3)
    assert both["memory_bytes"] - plain["memory_bytes"] == 4 * plain["parameters"]

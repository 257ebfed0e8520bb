"""Presets: published settings as named defaults, which keys override."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fledge.cli import app
from fledge.core.config import build, with_overrides
from fledge.core.errors import ConfigError
from fledge.stages import sft
from fledge.train.optimizer import OptimizerConfig
from fledge.train.schedule import factor, steps_of


def config(preset: str, *overrides: str, **given: Any) -> sft.Config:
    values = {"model": "m", "data": ["d.jsonl"], "preset": preset, **given}
    return build(sft.Config, with_overrides(values, overrides))


def rates(made: sft.Config, steps: int) -> list[float]:
    return [made.optimizer.lr * factor(made.optimizer.schedule, step, steps) for step in range(steps)]


def test_qwen1_reaches_its_peak_at_step_1430() -> None:
    made = config("qwen1")
    assert made.steps == 4000
    trace = rates(made, 4000)
    assert trace[1430] == pytest.approx(2e-6)
    assert max(trace) == trace[1430] > trace[1429]
    assert trace[-1] == pytest.approx(2e-7)
    assert (made.batch_size, made.max_tokens, made.mask) == (128, 2048, "qwen1")
    assert (made.optimizer.betas, made.optimizer.eps, made.optimizer.weight_decay) == ((0.9, 0.95), 1e-8, 0.1)


def test_qwen2_falls_to_a_tenth() -> None:
    made = config("qwen2", "optimizer.schedule.warmup=0")
    steps = steps_of(1001, made.passes, 2)
    trace = rates(made, steps)
    assert (trace[0], trace[steps // 2], trace[-1]) == pytest.approx((7e-6, 3.85e-6, 7e-7))
    assert (made.passes, made.max_tokens, made.optimizer.clip) == (2, 32_768, 1.0)


def test_keys_override_level_by_level() -> None:
    made = config("qwen1", "optimizer.lr=1e-5", "optimizer.schedule.warmup=10", "steps=50", mask="all")
    assert (made.optimizer.lr, made.optimizer.schedule.warmup, made.mask) == (1e-5, 10, "all")
    assert (made.optimizer.schedule.floor, made.batch_size) == (0.1, 128)
    facts = made.preset_facts()
    assert facts is not None
    assert facts["overridden"] == ["optimizer.lr", "optimizer.schedule.warmup", "steps", "mask"]
    assert "2309.16609" in facts["source"]
    assert build(sft.Config, made.plain()) == made, "what a manifest records makes the same configuration"


def test_a_built_part_overrides_only_what_was_set() -> None:
    made = sft.Config(model=Path("m"), data=(Path("d"),), preset="qwen1", optimizer=OptimizerConfig(lr=1e-4))
    assert (made.optimizer.lr, made.optimizer.schedule.warmup) == (1e-4, 0.3575)


def test_no_preset_changes_nothing() -> None:
    made = sft.Config(model=Path("m"), data=(Path("d"),), optimizer=OptimizerConfig(lr=1e-4))
    assert (made.preset, made.preset_facts(), made.passes, made.max_tokens) == (None, None, 2.0, 0)


def test_refusals() -> None:
    with pytest.raises(ConfigError, match=r"preset: unknown preset; did you mean 'qwen2'\? \(got 'qwen'\)"):
        config("qwen", optimizer={"lr": 1})
    with pytest.raises(ConfigError, match=r"epochs=1 and steps=4000: give one"):
        config("qwen1", epochs=1)
    assert config("qwen1", epochs=1, steps=None).passes == 1


def test_dry_run_and_manifest_show_preset_and_source(tmp_path: Path) -> None:
    from fledge.core.artefact import produce, read_manifest

    file = tmp_path / "sft.json"
    file.write_text(json.dumps({"model": "none", "data": ["none"], "preset": "ct-llm", "epochs": 1}), encoding="utf-8")
    made = config("ct-llm", epochs=1)
    with produce(tmp_path / "out", kind="model", stage="sft", config=made):
        pass
    manifest = read_manifest(tmp_path / "out")
    assert manifest["config"]["preset"] == "ct-llm"
    assert manifest["config"]["optimizer"]["lr"] == 2e-5
    assert manifest["preset"]["overridden"] == ["epochs"]
    assert "2404.04167" in manifest["preset"]["source"]
    said = CliRunner().invoke(app, ["sft", "--keys"]).output
    assert "preset qwen2" in said
    assert "2407.10671" in said

"""`fledge profile` of every training stage, on the small world."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stages_small import Small

from fledge.commands.profile import profile
from fledge.core.errors import ConfigError
from fledge.core.machine import bf16_instructions


@pytest.fixture(autouse=True)
def _switches(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process goes on with other tests: its allocator and threads stay."""
    monkeypatch.setenv("FLEDGE_KEEP_ALLOCATOR", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    monkeypatch.setenv("COLUMNS", "150")


def files(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.mark.parametrize("stage", ["pretrain", "sft", "dpo", pytest.param("ppo", marks=pytest.mark.long), "grpo"])
def test_a_stage(stage: str, small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, out = tmp_path / "config.json", tmp_path / "profile.json"
    config.write_text(json.dumps(small.config(stage)), encoding="utf-8")
    before = files(small.root)
    dtype = "bfloat16" if bf16_instructions() else "float32"
    profile(stage, str(config), [f"dtype={dtype}"], 2, 1, 5, out, None)
    assert files(small.root) == before, "nothing is written where the stage's data and models are"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "profile.json"]
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["config"]["dtype"] == found["dtype"] == dtype
    parts = {part["name"]: part for part in found["parts"]}
    for name in ("source", "projections", "attention", "head and loss", "elementwise", "optimizer", "loop"):
        assert parts[name]["seconds"] > 0, name
    assert sum(part["seconds"] for part in found["parts"]) == pytest.approx(found["seconds"])
    assert (found["sampled"] > 0) == (stage == "grpo")
    assert found["cycle"] == {"ppo": 4, "grpo": 2}.get(stage, 1)
    models = 2 if stage == "ppo" else 1
    assert found["memory"]["weights"] == pytest.approx(4 * models * found["parameters"], rel=0.1)
    if stage == "grpo":
        assert parts["source"]["seconds"] > 0.3 * found["seconds"], "sampling takes most of such a step"
    shown = capsys.readouterr().out
    for words in ("where the time goes", "where the memory goes", "most expensive operations", "projections", "source"):
        assert words in shown


def test_an_artefact_is_a_configuration(small: Small, tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    profile("pretrain", small.at("pretrain"), ["batch_tokens=256"], 1, 1, 0, out, None)
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    assert found["config"]["batch_tokens"] == 256
    assert found["config"]["context"] == 64, "the rest as the manifest says"
    with pytest.raises(ConfigError, match="made by stage pretrain, not sft"):
        profile("sft", small.at("pretrain"), [], 1, 1, 0, None, None)


@pytest.mark.parametrize(
    ("stage", "out", "message"),
    [
        ("tokenizer", None, "no training stage; pretrain, sft, reward, dpo, online-dpo, ppo, grpo are"),
        ("sfd", None, "did you mean 'sft'"),
        ("sft", "nowhere/profile.json", "there is no folder"),
    ],
)
def test_refused_with_the_reason(stage: str, out: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        profile(stage, None, [], 1, 1, 0, tmp_path / out if out else None, None)


def test_only_as_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one process, not as 2 ranks"):
        profile("sft", None, [], 1, 1, 0, None, None)

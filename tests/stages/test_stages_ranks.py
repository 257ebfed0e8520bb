"""A training stage on two ranks, started with torchrun: one artefact, the same model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from stages_small import Small

from fledge.commands.stage import run_stage
from fledge.core.errors import ConfigError

DOOR = (sys.executable, "-c", "from fledge.cli import main; main()")


def on_two_ranks(stage: str, values: dict[str, Any], out: Path) -> subprocess.CompletedProcess[str]:
    file = out.parent / f"{out.name}-ranks.json"
    file.write_text(json.dumps(values), encoding="utf-8")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        [*launcher, *DOOR, stage, str(file), "--out", str(out)],
        capture_output=True, text=True, timeout=240, env=environment,
    )  # fmt: skip


def test_sft_on_two_ranks_is_that_of_one(small: Small, tmp_path: Path) -> None:
    # Adam divides by its eps what has no gradient but rounding (the keys' biases), so one that is above rounding
    optimizer = {"lr": 1e-3, "eps": 1e-4}
    out = tmp_path / "two"
    one = small.run("sft", tmp_path / "one", optimizer=optimizer, epochs=0.2)
    done = on_two_ranks("sft", small.config("sft", optimizer=optimizer, epochs=0.2), out)
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert two["metrics"]["loss"] == pytest.approx(one["metrics"]["loss"], rel=1e-4)
    assert {**two["metrics"], **{k: one["metrics"][k] for k in one["metrics"]}} == one["metrics"], "the same keys"
    assert done.stdout.count("done in") == 1
    before, single, sharded = (
        load_file(folder / "model.safetensors") for folder in (Path(small.at("pretrain")), tmp_path / "one", out)
    )
    assert single.keys() == sharded.keys()
    for name, value in single.items():
        assert float((value - sharded[name]).abs().max()) < 1e-5, name
    assert max(float((single[name] - before[name]).abs().max()) for name in single) > 1e-3
    assert sorted(p.name for p in tmp_path.glob(".*")) == [], "no half-made artefact is left"


@pytest.mark.long
def test_ppo_on_two_ranks(small: Small, tmp_path: Path) -> None:
    """Both models sharded, the value's one row of head on one rank: the run of one process but for rounding, as long as
    no sampled token has turned on it."""
    optimizer = {"lr": 1e-3, "eps": 1e-4}
    changes = {"optimizer": optimizer, "value": {"optimizer": optimizer, "warmup": 2}, "steps": 4}
    one, out = small.run("ppo", tmp_path / "one", **changes), tmp_path / "two"
    done = on_two_ranks("ppo", small.config("ppo", **changes), out)
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert one["metrics"].keys() == two["metrics"].keys()
    for key in ("loss", "reward", "kl", "value_explained", "value_grad_norm"):
        assert two["metrics"][key] == pytest.approx(one["metrics"][key], rel=1e-3, abs=1e-5), key
    for name in ("model.safetensors", "value/model.safetensors"):
        single, sharded = load_file(tmp_path / "one" / name), load_file(out / name)
        assert max(float((single[key] - sharded[key]).abs().max()) for key in single) < 1e-4


@pytest.mark.long
def test_adapters_and_dropout_on_two_ranks_are_those_of_one(small: Small, tmp_path: Path) -> None:
    """Sharded adapters beside a frozen model; masks that know tokens, not ranks."""
    changes: dict[str, Any] = {"lora": {"r": 4}, "dropout": 0.2, "epochs": 0.1, "optimizer": {"lr": 1e-2, "eps": 1e-4}}
    one = small.run("sft", tmp_path / "one", **changes)
    done = on_two_ranks("sft", small.config("sft", **changes), tmp_path / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "two" / "manifest.json").read_text(encoding="utf-8"))
    assert two["metrics"]["loss"] == pytest.approx(one["metrics"]["loss"], rel=1e-4)
    single, sharded = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert single.keys() == sharded.keys()
    for name, value in single.items():
        assert float((value - sharded[name]).abs().max()) < 1e-4, name
    assert any(float(value.abs().max()) > 1e-3 for name, value in single.items() if "lora_B" in name)


@pytest.mark.long
def test_two_ranks_leave_alone_what_is_done(small: Small) -> None:
    out = Path(small.at("pretrain"))
    before = (out / "manifest.json").read_bytes()
    done = on_two_ranks("pretrain", small.config("pretrain"), out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("done before") == 1
    assert (out / "manifest.json").read_bytes() == before


def test_other_stages_refuse_ranks(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    values = [f"documents={small.at('corpus')}", f"tokenizer={small.at('tokenizer')}"]
    with pytest.raises(ConfigError, match="runs as one process, not as 2 ranks"):
        run_stage("shards", None, values, tmp_path / "out", dry_run=False, redo=False)

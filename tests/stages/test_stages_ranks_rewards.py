"""Two ranks whose clocks, user's functions or tools would answer differently: the first's answers count for both."""

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

Jobs = dict[str, tuple[str, dict[str, Any]]]
DRAWN = [{"kind": "function", "function": "ranks_functions:score"}]
OPTIMIZER = {"lr": 1e-3, "eps": 1e-4}  # eps above rounding: see test_stages_ranks
ROLLOUT = {"prompts": 4, "samples": 3, "max_new_tokens": 8, "leave_out": []}


def on_two_ranks(jobs: Jobs, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """What each rank says of each job."""
    (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    script = Path(__file__).with_name("ranks_rewards.py")
    path = os.pathsep.join([str(script.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script,
         folder / "jobs.json"],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return {
        name: [json.loads((folder / f"{name}-{rank}.json").read_text(encoding="utf-8")) for rank in (0, 1)]
        for name in [*jobs, "tool"]
    }


def changed(out: Path, other: Path) -> float:
    """The largest difference between two models' weights."""
    one, two = (load_file(folder / "model.safetensors") for folder in (out, other))
    assert one.keys() == two.keys()
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def require_those_of_one(small: Small, jobs: Jobs, told: dict[str, list[dict[str, Any]]], folder: Path) -> None:
    """Both ranks hold the same, and the model is the one of a process alone, whose functions answer as the first's."""
    for name, (stage, values) in jobs.items():
        first, second = told[name]
        assert "state" in first, first
        assert first == second, name
        alone = small.run(stage, folder / f"{name}-alone", **values)["metrics"]
        both = json.loads((folder / name / "manifest.json").read_text(encoding="utf-8"))["metrics"]
        for key in ("loss", "reward", "reward_std", "grad_norm"):
            assert both[key] == pytest.approx(alone[key], rel=1e-3, abs=1e-5), (name, key)
        assert changed(folder / f"{name}-alone", Path(small.at("pretrain"))) > 1e-3, name
        assert changed(folder / name, folder / f"{name}-alone") < 1e-4, name


def test_the_first_rank_scores_for_both(small: Small, tmp_path: Path) -> None:
    """Rewards, failures among them, rewards of steps, what a tool says; a failure that stops the run stops both."""
    values = small.config(
        "grpo", rewards=DRAWN, process={"function": "ranks_functions:steps"}, rollout=ROLLOUT, steps=4,
        optimizer=OPTIMIZER,
    )  # fmt: skip
    failing = [{"kind": "function", "function": "ranks_functions:first_alone"}]
    jobs: Jobs = {
        "drawn": ("grpo", values),
        "stopped": ("grpo", {**values, "rewards": failing, "on_failure": "stop"}),
        "missing": ("grpo", {**values, "rewards": [{"kind": "function", "function": "ranks_functions:nobody"}]}),
    }
    told = on_two_ranks(jobs, tmp_path)
    for name, message in {"stopped": "no reward today", "missing": "cannot be loaded"}.items():
        one, other = told[name]
        assert message in one["error"]
        assert one == other
    one, other = told["tool"]
    assert one == other
    assert one["row"]["tool_calls"] > 0
    require_those_of_one(small, {"drawn": jobs["drawn"]}, told, tmp_path)


@pytest.mark.long
def test_every_online_stage_on_two_ranks_is_that_of_one(small: Small, tmp_path: Path) -> None:
    """With functions that would answer differently on each: as long as no sampled token has turned on rounding."""
    changes: dict[str, Any] = {"rewards": DRAWN, "rollout": ROLLOUT, "optimizer": OPTIMIZER, "steps": 4}
    merged = {**changes, "optimizer": {**OPTIMIZER, "merging": small.merging(every=2)}}
    jobs: Jobs = {
        "online": ("online-dpo", small.config("online-dpo", **changes)),
        "merged": ("online-dpo", small.config("online-dpo", **merged)),
        "ppo": ("ppo", small.config("ppo", **changes, value={"optimizer": OPTIMIZER, "warmup": 1})),
        "rloo": ("grpo", small.config("grpo", **changes, variant="rloo")),
        "gspo": ("grpo", small.config("grpo", **changes, variant="gspo")),
    }
    require_those_of_one(small, jobs, on_two_ranks(jobs, tmp_path), tmp_path)

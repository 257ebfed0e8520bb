"""The guard in an online stage: what it needs, what it logs, what of it is state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stages_small import Small

from fledge.core.config import build
from fledge.core.errors import ConfigError
from fledge.stages import grpo
from fledge.stages.dialogues import Account
from fledge.stages.rollouts import guard_of, read_tasks
from fledge.tokenizer.tokenizer import Tokenizer

WATCHED = {"kind": "verifier", "name": "held_out", "verifier": "format", "answer": {"boxed": True}, "weight": 0}


def test_the_guard_watches_what_is_not_trained_on(small: Small) -> None:
    guard = {"part": "held_out"}
    assert guard_of(build(grpo.Config, small.config("grpo"))) is None
    assert guard_of(build(grpo.Config, small.config("grpo", rewards=[{}, WATCHED], guard=guard))) is not None
    for rewards in ([{}], [{}, {**WATCHED, "weight": 0.1}]):
        with pytest.raises(
            ConfigError, match=r"guard\.part: 'held_out' is no part of rewards with weight 0; there are: none"
        ):
            guard_of(build(grpo.Config, small.config("grpo", rewards=rewards, guard=guard)))


def test_its_figures_are_logged(small: Small, tmp_path: Path) -> None:
    changes = {"rewards": [{}, WATCHED], "guard": {"part": "held_out", "rollouts": 1}, "steps": 6, "updates": 1}
    small.run("grpo", tmp_path / "out", **changes)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert "hacking" not in rows[0], "one rollout has nothing before it"
    assert all(row["hacking"] == 0 and row["held_out_gain"] == 0 for row in rows[1:])
    assert [row["reward_gain"] for row in rows[1:]] == pytest.approx(
        [r["reward"] - rows[0]["reward"] for r in rows[1:]]
    )


def test_its_memory_is_state(small: Small) -> None:
    config = build(grpo.Config, small.config("grpo", rewards=[{}, WATCHED], guard={"part": "held_out", "rollouts": 2}))
    words = Tokenizer.load(small.root / "pretrain")
    tasks = read_tasks(config.tasks, words, 64, "fail", Account())
    one, other = (grpo.Groups(grpo.make_sampler(config, tasks, words, 64), config, None, None) for _ in range(2))
    assert one.sampler.guard is not None
    for reward in (0.1, 0.2, 0.3):
        one.sampler.guard.look({"reward": reward, "reward_held_out": 0.5})
    other.load_state(json.loads(json.dumps(one.state())))
    assert other.sampler.guard is not None
    assert other.sampler.guard.state() == one.sampler.guard.state() == {
        "first": [[0.1, 0.5], [0.2, 0.5]], "last": [[0.3, 0.5]],
    }  # fmt: skip

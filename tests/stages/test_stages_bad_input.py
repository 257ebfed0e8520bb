"""Bad input at the door of whole stages: it is counted and shown, it stops no run, and nothing trains on it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from stages_small import Small

REWARDS = """
import time

def odd(task, text):
    match len(text) % 4:
        case 0:
            time.sleep(60)
        case 1:
            return float("nan")
        case 2:
            raise ValueError("this answer cannot be judged")
    return float("e" in text)
"""


def rows_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def pairs(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_pairs_that_teach_nothing_and_prompts_that_fill_the_context(small: Small, tmp_path: Path) -> None:
    good = [{"prompt": f"What is {n}?", "chosen": f"It is {n}.", "rejected": "No."} for n in range(4)]
    bad = [{**good[0], "rejected": good[0]["chosen"]}, {**good[1], "prompt": "word " * 400}]
    data = pairs(tmp_path / "pairs.jsonl", [*good, *bad])
    changes = {"data": [data], "batch_size": 2, "epochs": 1, "replay": None}
    manifest = small.run("dpo", tmp_path / "out", on_error="skip", **changes)
    assert manifest["metrics"]["rows_used"] == 4
    assert manifest["metrics"]["rows_skipped"] == {"malformed": 1, "longer than the context": 1}
    plain = small.run("dpo", tmp_path / "plain", **{**changes, "data": [pairs(tmp_path / "good.jsonl", good)]})
    assert manifest["metrics"]["steps"] == plain["metrics"]["steps"]
    logged = [[row["loss"] for row in rows_of(tmp_path / name)] for name in ("out", "plain")]
    assert logged[0] == logged[1], "what was left out has no part in training"


@pytest.mark.parametrize("stage", ["grpo", "online-dpo"])
def test_rewards_that_hang_raise_or_are_no_number(
    stage: str, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_input_rewards.py").write_text(REWARDS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    rewards = [{"kind": "function", "function": "bad_input_rewards:odd", "seconds": 0.2}]
    with pytest.warns(UserWarning, match="left out"):
        small.run(stage, tmp_path / "out", rewards=rewards, steps=2, replay=None)
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2
    assert sum(row["failed_function"] for row in rows) > 0
    assert all(0 < row["left_out"] <= 1 for row in rows)
    assert all(row["reward"] in (0.0, 1.0) or 0 < row["reward"] < 1 for row in rows if "reward" in row)
    assert all(math.isfinite(value) for row in rows for value in row.values())

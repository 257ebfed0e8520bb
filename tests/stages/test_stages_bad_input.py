"""Bad input at the door of whole stages: it is counted and shown, it stops no run, and nothing trains on it."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
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

VALUE = {"optimizer": {"lr": 1e-3}, "warmup": 1}  # of PPO: two steps, of which the policy is trained in the second


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


@pytest.mark.parametrize("stage", ["grpo", "online-dpo", "ppo"])
def test_rewards_that_hang_raise_or_are_no_number(
    stage: str, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_input_rewards.py").write_text(REWARDS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    rewards = [{"kind": "function", "function": "bad_input_rewards:odd", "seconds": 0.2}]
    changes = {"value": VALUE} if stage == "ppo" else {}
    with pytest.warns(UserWarning, match="left out"):
        small.run(stage, tmp_path / "out", rewards=rewards, steps=2, replay=None, **changes)
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2
    assert sum(row["failed_function"] for row in rows) > 0
    assert all(0 < row["left_out"] <= 1 for row in rows)
    assert all(row["reward"] in (0.0, 1.0) or 0 < row["reward"] < 1 for row in rows if "reward" in row)
    assert all(math.isfinite(value) for row in rows for value in row.values())


class Moody(BaseHTTPRequestHandler):
    """A judge that, by the answer's length, is slow, writes nonsense, is down, or gives a rating."""

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_POST(self) -> None:
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        length = len(prompt)  # what is asked is the same for every answer but for the answer
        if length % 4 == 0:
            time.sleep(1.5)
        if length % 4 == 1:
            self.send_error(503)
            return
        text = "[[a duck]]" if length % 4 == 2 else f"Well.\n\n[[{1 + length % 10}]]"
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        data = json.dumps({"choices": [choice]}).encode()
        with suppress(OSError):  # whoever asked may have gone
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)


@pytest.mark.parametrize("stage", ["grpo", "online-dpo"])
def test_a_judge_that_is_slow_unclear_or_down(stage: str, small: Small, tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Moody)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = {
        "url": f"http://127.0.0.1:{server.server_address[1]}/v1", "model": "moody", "timeout": 0.3, "attempts": 2,
        "pause": 0.01,
    }  # fmt: skip
    try:
        with pytest.warns(UserWarning, match="left out") as heard:
            small.run(
                stage, tmp_path / "out", rewards=[{"kind": "judge", "judge": {"endpoint": endpoint}}], steps=2,
                replay=None,
            )  # fmt: skip
    finally:
        server.shutdown()
        server.server_close()
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2
    failed = sum(row["failed_judge"] for row in rows)
    asked = 2 * 4 * 3  # steps, prompts, samples
    assert 0 < failed < asked
    assert sum(row["left_out"] for row in rows) * 12 == pytest.approx(failed), "what has no verdict is left out"
    assert re.search("no reply: |unclear: no verdict", str(heard[0].message)), "the first reason is told"
    assert all(math.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize("stage", ["grpo", "online-dpo", "ppo"])
def test_tasks_that_fill_the_context_and_answers_that_never_end(stage: str, small: Small, tmp_path: Path) -> None:
    """One task of thirteen has no room for an answer; and no answer ends in the one token that it may have, so none is
    trained on: the weights stay what they were."""
    tasks = (small.root / "sums.jsonl").read_text(encoding="utf-8").splitlines()
    long = {**json.loads(tasks[0]), "id": "long", "messages": [{"role": "user", "content": "word " * 400}]}
    (tmp_path / "tasks.jsonl").write_text("\n".join([*tasks, json.dumps(long)]) + "\n", encoding="utf-8")
    changes: dict[str, Any] = {"tasks": [str(tmp_path / "tasks.jsonl")], "steps": 2, "replay": None}
    rollout = {"prompts": 4, "max_new_tokens": 1, "leave_out": ["empty", "all_cut"]}
    if stage != "ppo":
        rollout["samples"] = 3
    if stage == "online-dpo":
        changes["optimizer"] = {"lr": 1e-3}  # merging would move the weights without a gradient
    if stage == "ppo":
        changes |= {"ptx": None, "value": VALUE}
    manifest = small.run(stage, tmp_path / "out", rollout=rollout, **changes)
    assert manifest["metrics"]["rows_skipped"] == {"the prompt fills the context": 1}
    rows = rows_of(tmp_path / "out")
    assert len(rows) == 2
    assert all(row["groups_all_cut"] == row["left_out"] == row["cut_off"] == 1 for row in rows)
    folders = small.root / "pretrain", tmp_path / "out"
    before, after = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(before[name], after[name]) for name in before)

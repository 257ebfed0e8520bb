"""Online DPO: which answers make a pair, what is counted instead, and that the reward rises."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from stages_small import Small

from fledge.core.config import build
from fledge.core.errors import ArtefactError, ConfigError
from fledge.core.records import Message, Task
from fledge.stages import online_dpo
from fledge.stages.online_dpo import CLOSE, EQUAL, FEW, TIE, BestOnly, OnlineDpo, chosen_example, contest
from fledge.stages.rollouts import Answer, Rollout
from fledge.train.batch import empty_example

TASK = Task(id="t", messages=(Message(role="user", content="?"),), verifier="number", answer={"value": 1})
LETTERS = """
def letters(task, reply):
    return float(sum(reply.lower().count(letter) for letter in "ea"))
"""


def group(rewards: list[float], tokens: list[list[int]] | None = None) -> Rollout:
    tokens = tokens or [[10 + i, 3] for i in range(len(rewards))]
    return Rollout(TASK, [1, 2], [Answer(t, [True] * len(t), [-1.0] * len(t)) for t in tokens], rewards)


@pytest.mark.parametrize(
    ("made", "spread", "want"),
    [
        (group([0.5, 1.0, 0.0, 1.0]), 0.0, (1, 2)),
        (group([0.0, 1.0]), 0.99, (1, 0)),
        (group([0.0, 1.0]), 1.0, CLOSE),
        (group([1.0, 1.0, 1.0]), 0.0, TIE),
        (group([1.0, 0.0], [[5, 6], [5, 6]]), 0.0, EQUAL),
        (group([1.0]), 0.0, FEW),
        (group([]), 0.0, FEW),
    ],
)
def test_a_pair_or_why_not(made: Rollout, spread: float, want: tuple[int, int] | str) -> None:
    counts: Counter[str] = Counter()
    found = contest(made, spread, counts)
    assert ((found[1], found[2]) if found is not None else None) == (want if isinstance(want, tuple) else None)
    assert dict(counts) == ({} if isinstance(want, tuple) else {want: 1})


def test_a_pair_as_an_example() -> None:
    """What a tool said within an answer stands there and is not trained on."""
    made = group([1.0, 0.0])
    made.answers[0].own[0] = False
    prompt, chosen, rejected = chosen_example(made, {0: 1.0, 1: -1.0}).segments
    assert not prompt.weight.any()
    assert (chosen.tokens.tolist(), chosen.weight.tolist(), dict(chosen.values)) == ([10, 3], [0, 1], {"side": 1.0})
    assert (rejected.tokens.tolist(), rejected.weight.tolist(), dict(rejected.values)) == (
        [11, 3],
        [1, 1],
        {"side": -1},
    )


def test_a_batch_without_pairs_has_loss_0() -> None:
    assert OnlineDpo(online_dpo.DpoSettings(nll=0.1), True).denominators([empty_example()]) == {"dpo": 1.0, "nll": 1.0}
    assert BestOnly().denominators([empty_example()]) == {"nll": 1.0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rollout": {"samples": 1}}, "the best and the worst of one answer are the same"),
        ({"missing_end_penalty": 1, "rollout": {"leave_out": ["cut"]}}, "nothing to act on"),
        ({"smoothing": 0.1}, "loss=sigmoid has no smoothing"),
    ],
)
def test_configurations_that_make_no_sense(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(online_dpo.Config, {"model": ".", "tasks": ["."], "optimizer": {"lr": 1e-3}, **changes})


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("mode", ["best_worst_dpo", "rs_sft"])
def test_the_reward_rises(mode: str, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SPEC I.4: the reward is the count of a letter (of two: the model is very small)."""
    (tmp_path / "letters_reward.py").write_text(LETTERS)
    monkeypatch.syspath_prepend(str(tmp_path))
    rollout = {"prompts": 8, "samples": 6, "max_new_tokens": 10, "leave_out": ["empty"]}
    small.run(
        "online-dpo", tmp_path / "out", mode=mode, steps=20, rollout=rollout, replay=None, missing_end_penalty=0,
        optimizer={"lr": 1e-2, "schedule": {"warmup": 0, "kind": "constant"}},
        rewards=[{"kind": "function", "function": "letters_reward:letters"}],
    )  # fmt: skip
    log = rows(tmp_path / "out")
    first, last = (sum(row["reward"] for row in part) / 3 for part in (log[:3], log[-3:]))
    assert last > first + 1
    for row in log:
        assert row["pairs"] + sum(row[name] for name in (FEW, TIE, CLOSE, EQUAL)) == 8
        assert row.get("engine_gap", 0) < 1e-4


def test_a_run_in_which_nothing_tells_answers_apart(small: Small, tmp_path: Path) -> None:
    """Every reward is equal: no pair in any step, which is counted and shown; the run goes on and changes little."""
    tasks = tmp_path / "tasks.jsonl"
    row = {
        "id": "a",
        "messages": [{"role": "user", "content": "?"}],
        "verifier": "contains",
        "answer": {"any": ["龘龘"]},
    }
    tasks.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    small.run("online-dpo", tmp_path / "out", tasks=[str(tasks)], steps=2, replay=None, missing_end_penalty=0)
    for step in rows(tmp_path / "out"):
        assert (step["loss"], step["pairs"], step[TIE]) == (0.0, 0.0, 4.0)


def test_merging_is_an_input_of_the_artefact(small: Small, tmp_path: Path) -> None:
    manifest = small.run("online-dpo", tmp_path / "out", steps=1, replay=None)
    assert manifest["inputs"]["merging_sft"] == manifest["inputs"]["model"] != manifest["inputs"]["merging_base"]
    with pytest.raises(ArtefactError, match=r"merging\.alpha: was 0\.001, is 0\.002"):
        small.run("online-dpo", tmp_path / "out", steps=1, replay=None, optimizer=_other(small, alpha=2e-3))
    same = _other(small, base=small.at("pretrain"))
    with pytest.raises(ConfigError, match="no weight differs that is trained here"):
        small.run("online-dpo", tmp_path / "same", steps=1, replay=None, optimizer=same)


def _other(small: Small, **changes: Any) -> dict[str, Any]:
    return {"lr": 1e-3, "merging": small.merging(every=2, **changes)}


@pytest.mark.parametrize("stage", ["sft", "dpo", "grpo"])
def test_other_stages_merge_too(stage: str, small: Small, tmp_path: Path) -> None:
    """With Muon: both of its optimizers are wrapped. Merging changes what comes out, and no metric is lost."""
    short: dict[str, Any] = {"steps": 2} if stage == "grpo" else {"epochs": 0.2}
    muon = {"name": "muon", "lr": 1e-3}
    plain = small.run(stage, tmp_path / "plain", optimizer=muon, **short)["metrics"]
    merged = small.run(stage, tmp_path / "merged", optimizer={**muon, "merging": small.merging()}, **short)["metrics"]
    assert plain.keys() == merged.keys()
    before, after = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("plain", "merged"))
    assert before != after

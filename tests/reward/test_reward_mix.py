"""The mix of rewards: weighted sums of clipped parts, and what fails is counted and leaves the answer out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from fledge.core.config import build
from fledge.core.errors import ConfigError, DataError, FledgeError
from fledge.core.records import Message, Task
from fledge.reward.functions import Function, FunctionFailed
from fledge.reward.mix import Failure, Reply, RewardPart, Rewards

MODULE = """
import os, time

def length(task, reply):
    print("a print does not disturb the wire")
    return len(reply)

def strange(task, reply):
    if reply == "raise":
        raise KeyError("gone")
    if reply == "hang":
        while True:
            pass
    if reply == "die":
        os._exit(3)
    return {"nan": float("nan"), "inf": float("inf"), "text": "much", "none": None}.get(reply, 0.5)

def share(task, reply):
    return 2.0 if reply == "too much" else 1.0
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "own_rewards"


def reply(text: str, verifier: str = "number", answer: dict[str, Any] | None = None) -> Reply:
    messages = (Message(role="user", content="1 + 1?"),)
    task = Task(id="sum", messages=messages, verifier=verifier, answer=answer or {"value": 2})
    return Reply(task, text, messages)


def part(**values: Any) -> RewardPart:
    return build(RewardPart, values)


def test_sum_of_clipped_weighted_parts(own: str) -> None:
    """total = verifier + .1 x length within [0, 5]; each part is logged before its clip."""
    short = part(kind="function", function=f"{own}:length", name="length", weight=0.1, clip=[0, 5])
    rewards = Rewards([part(), short])
    scored = rewards.score([reply("it is 2"), reply("3"), reply("2")])
    assert [one.total for one in scored] == pytest.approx([1.5, 0.1, 1.1])
    assert scored[0].parts == {"verifier": 1.0, "length": 7.0}
    row = rewards.statistics(scored)
    assert row == pytest.approx(
        {
            "reward_verifier": 2 / 3, "failed_verifier": 0,
            "reward_length": 3, "at_clip_length": 1 / 3, "failed_length": 0,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("raise", "KeyError: 'gone'"), ("hang", "no answer in 0.3 seconds"), ("die", "its process ended"),
        ("nan", "it gave nan"), ("inf", "it gave inf"), ("text", "'much', which is no number"), ("none", "no number"),
    ],
)  # fmt: skip
def test_a_part_that_fails_leaves_the_answer_out(text: str, reason: str, own: str) -> None:
    """Not a reward of 0; the answers after it are scored as ever, by a new process where the old one is gone."""
    rewards = Rewards([part(kind="function", function=f"{own}:strange", seconds=0.3)])
    with pytest.warns(UserWarning, match="left out of training"):
        scored = rewards.score([reply("fine"), reply(text), reply("fine")])
    assert [one.total for one in scored] == [0.5, None, 0.5]
    outcome = scored[1].parts["function"]
    assert isinstance(outcome, Failure)
    assert reason in outcome.reason
    assert rewards.statistics(scored) == {"reward_function": 0.5, "failed_function": 1.0}


def test_a_part_without_weight_is_only_watched(own: str) -> None:
    """Logged like any other; where it fails the answer still counts, also where failures stop the run."""
    watched = part(kind="function", function=f"{own}:strange", name="held_out", weight=0)
    rewards = Rewards([part(), watched], on_failure="stop")
    with pytest.warns(UserWarning, match="'held_out' has no value"):
        scored = rewards.score([reply("2"), reply("nan")])
    assert [one.total for one in scored] == [1, 0]
    assert rewards.statistics(scored) == {
        "reward_verifier": 0.5, "failed_verifier": 0, "reward_held_out": 0.5, "failed_held_out": 1,
    }  # fmt: skip


def test_a_verifier_of_the_part() -> None:
    """The same for every task, checked before anything is scored."""
    form = part(verifier="format", answer={"boxed": True}, name="form")
    scored = Rewards([part(), form]).score([reply("it is 2"), reply(r"\boxed{2}"), reply(r"\boxed{3}")])
    assert [one.total for one in scored] == pytest.approx([1.0, 1.1, 0.1])
    with pytest.raises(DataError, match=r"rewards\.form.*needs one of boxed"):
        Rewards([part(verifier="format", name="form")])
    for values in ({"verifier": "format", "kind": "function", "function": "a:b"}, {"answer": {"boxed": True}}):
        with pytest.raises(ConfigError, match="go together"):
            part(**values)


def test_failures_stop_where_told(own: str) -> None:
    rewards = Rewards([part(kind="function", function=f"{own}:strange")], on_failure="stop")
    with pytest.raises(FledgeError, match=r"'function' has no value for an answer to task 'sum': it gave nan"):
        rewards.score([reply("nan")])


def test_the_tasks_own_verifier(own: str) -> None:
    """Ours together; a user's in a process of its own; an answer that cannot be used costs that answer alone."""
    rewards = Rewards([part()])
    replies = [
        reply("2"), reply("3"), reply("x", f"{own}:share", {"any": 1}), reply("too much", f"{own}:share", {"any": 1}),
        reply("2", "number", {"value": math.nan}),
    ]  # fmt: skip
    with pytest.warns(UserWarning, match="has no value"):
        scored = rewards.score(replies)
    assert [one.total for one in scored] == [1, 0, 1, None, None]
    assert rewards.statistics(scored)["failed_verifier"] == 2


def test_what_cannot_be_configured(own: str) -> None:
    for values, message in (
        ({"kind": "function"}, "needs a function"),
        ({"kind": "verifier", "model": "x"}, "takes no model"),
        ({"clip": [1, 1]}, "the first must be the lower"),
        ({"kind": "oracle"}, "kind"),
    ):
        with pytest.raises(ConfigError, match=message):
            part(**values)
    with pytest.raises(FledgeError, match="several parts are called verifier"):
        Rewards([part(), part()])
    with pytest.raises(ConfigError, match=r"own_rewards:nowhere: cannot be loaded: .*nowhere"):
        Rewards([part(kind="function", function=f"{own}:nowhere")])
    with pytest.raises(ConfigError, match="cannot be loaded"):
        Function("no_such_module:f", 1)


def test_a_function_that_hangs_leaves_no_process(own: str) -> None:
    function = Function(f"{own}:strange", 0.2)
    process = function._process
    assert process is not None
    with pytest.raises(FunctionFailed, match="no answer"):
        function(reply("x").task, "hang")
    assert process.poll() is not None
    assert function(reply("x").task, "fine") == 0.5
    function.close()

"""The watch on reward hacking."""

from __future__ import annotations

import json
import warnings

import pytest

from fledge.core.config import build
from fledge.core.errors import FledgeError
from fledge.reward.guard import Guard, GuardConfig


def guard(**values: object) -> Guard:
    return Guard(build(GuardConfig, {"part": "held_out", "rollouts": 3} | values))


def feed(one: Guard, rewards: list[float], held_out: list[float]) -> list[dict[str, float]]:
    pairs = zip(rewards, held_out, strict=True)
    return [one.look({"reward": reward, "reward_held_out": watched}) for reward, watched in pairs]


RISING = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def test_a_fall_while_the_reward_rises() -> None:
    one = guard()
    with pytest.warns(UserWarning, match=r"has risen by 0\.3 .*'held_out', .* has fallen by 0\.2") as told:
        rows = feed(one, RISING, [0.8, 0.8, 0.8, 0.7, 0.6, 0.5, 0.3])
    assert rows[:5] == [{}] * 5, "nothing to compare before there are as many at the end as at the beginning"
    assert rows[5] == pytest.approx({"reward_gain": 0.3, "held_out_gain": -0.2, "hacking": 1.0})
    assert len(told) == 1


@pytest.mark.parametrize("held_out", [RISING, [0.8] * 7, [0.8, 0.8, 0.8, 0.8, 0.78, 0.76, 0.76]])
def test_no_alarm(held_out: list[float]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert feed(guard(), RISING, held_out)[-1]["hacking"] == 0
        assert feed(guard(), RISING[::-1], held_out)[-1]["hacking"] == 0, "both fall: the policy got worse"


def test_stop_where_told() -> None:
    with pytest.raises(FledgeError, match="looks like hacking of the reward"):
        feed(guard(on_hacking="stop"), RISING, [0.9 - reward for reward in RISING])


def test_rollouts_without_a_value_are_passed_over() -> None:
    one = guard()
    assert one.look({"reward": 1.0}) == one.look({"reward_held_out": 1.0}) == {}
    assert one.state() == {"first": [], "last": []}


def test_state_goes_on_as_if_nothing_had_been() -> None:
    held_out = [0.8, 0.8, 0.8, 0.79, 0.79, 0.78, 0.77]
    whole = feed(guard(), RISING, held_out)
    first, second = guard(), guard()
    feed(first, RISING[:5], held_out[:5])
    second.load_state(json.loads(json.dumps(first.state())))
    assert feed(second, RISING[5:], held_out[5:]) == whole[5:]

"""A sampled group as an example: how much each of its tokens counts, by the variant's definition (SPEC J.4-J.6)."""

from __future__ import annotations

import numpy as np
import pytest

from fledge.core.records import Message, Task
from fledge.stages.grpo import METHODS, Variant, with_advantages
from fledge.stages.rollouts import Answer, Rollout, freeze, thaw
from fledge.train.batch import Example

TASK = Task(id="t", messages=(Message(role="user", content="?"),), verifier="number", answer={"value": 1})
ANSWERS = [
    Answer([5, 6, 7, 8], [True, False, True, True], [-1.0, 0.0, -3.0, -4.0], "stop", "a"),
    Answer([9], [True], [-0.5], "length", "b"),
]
GROUP = Rollout(TASK, [1, 2, 3], ANSWERS, [1.0, 0.0])


def example() -> Example:
    return GROUP.example(samples=2.0, sampled=4.0)


@pytest.mark.parametrize("variant", METHODS)
def test_tokens_count_as_the_variant_says(variant: Variant) -> None:
    """Of the mean of each answer's mean a token is one over its answer's own length; else every token is 1. What a tool
    said (the second token) is not trained on and not counted."""
    shares = [1.0, 1.0] if variant in ("dr_grpo", "dapo") else [1 / 3, 1.0]
    prompt, *children = with_advantages(example(), [0.7, -0.7], METHODS[variant]).segments
    assert dict(prompt.values) == {"samples": 2.0, "sampled": 4.0}
    assert not prompt.weight.any()
    for child, answer, advantage, share in zip(children, ANSWERS, (0.7, -0.7), shares, strict=True):
        assert child.tokens.tolist() == answer.tokens
        assert dict(child.values) == {"advantage": advantage, "share": share}
        assert child.columns["engine"].tolist() == np.asarray(answer.logp, np.float32).tolist()
        assert child.weight.tolist() == answer.own
        assert child.origin == ("t", 3)


def test_a_group_without_spread_travels_as_its_prompt() -> None:
    (prompt,) = with_advantages(example(), [0.0, 0.0], METHODS["dapo"]).segments
    assert dict(prompt.values) == {"samples": 2.0, "sampled": 4.0}  # the denominators count it all the same
    assert len(with_advantages(example(), [0.0, 0.0], METHODS["dapo"], always=True).segments) == 3


def test_what_waits_is_state_to_the_last_bit() -> None:
    group = with_advantages(example(), [1 / 3, -1 / 3], METHODS["grpo"])
    again = thaw(freeze(group))
    assert freeze(again) == freeze(group)
    for one, other in zip(again.segments, group.segments, strict=True):
        assert one.tokens.dtype == other.tokens.dtype
        assert all(one.columns[name].tobytes() == other.columns[name].tobytes() for name in other.columns)

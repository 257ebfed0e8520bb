"""A sampled group as an example: how much each of its tokens counts, by the variant's definition (SPEC J.5, J.6)."""

from __future__ import annotations

import numpy as np
import pytest

from fledge.core.records import Message, Task
from fledge.generate.engine import Completion
from fledge.stages.grpo import Rollout, Variant, group_example

TASK = Task(id="t", messages=(Message(role="user", content="?"),), verifier="number", answer={"value": 1})
ANSWERS = [Completion([5, 6, 7, 8], [], [-1.0, -2.0, -3.0, -4.0], "stop"), Completion([9], [], [-0.5], "length")]
GROUP = Rollout(TASK, [1, 2, 3], ANSWERS, [1.0, 0.0])


@pytest.mark.parametrize(("variant", "shares"), [("grpo", [0.25, 1.0]), ("dr_grpo", [1.0, 1.0]), ("dapo", [1.0, 1.0])])
def test_tokens_count_as_the_variant_says(variant: Variant, shares: list[float]) -> None:
    """grpo: the mean of each answer's mean, so a token counts one over its answer's length; else every token 1."""
    prompt, *children = group_example(GROUP, [0.7, -0.7], variant).segments
    assert dict(prompt.values) == {"samples": 2.0, "sampled": 5.0}
    assert not prompt.weight.any()
    for child, answer, advantage, share in zip(children, ANSWERS, (0.7, -0.7), shares, strict=True):
        assert child.tokens.tolist() == answer.tokens
        assert dict(child.values) == {"advantage": advantage, "share": share}
        assert child.columns["old"].tolist() == np.asarray(answer.model_logp, np.float32).tolist()
        assert child.weight.all()
        assert child.origin == ("t", 3)


def test_a_group_without_spread_travels_as_its_prompt() -> None:
    (prompt,) = group_example(GROUP, [0.0, 0.0], "dapo", with_answers=False).segments
    assert dict(prompt.values) == {"samples": 2.0, "sampled": 5.0}  # the denominators count it all the same

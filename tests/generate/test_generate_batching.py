"""Continuous batching and shared prompts: what runs side by side, and what is computed and kept once."""

from __future__ import annotations

import numpy as np
import pytest
from generate_cases import decoder, prompts, shape

from fledge.generate.cache import common_beginning
from fledge.generate.engine import Engine, Request
from fledge.generate.sampling import Sampling


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine((decoder(shape()), None), max_rows=8)


def limited(count: int, seed: int = 0) -> Sampling:
    return Sampling(max_new_tokens=count, seed=seed)


def test_waiting_rows_enter_while_others_go_on(engine: Engine) -> None:
    """One long answer and thirty short ones on eight places: the short ones pass by while the long one is written, so
    the whole takes about as many steps as the long one alone, not a wave for every eight."""
    asked = sorted(prompts(31), key=len)  # the order in which they are admitted
    requests = [Request(asked[0], sampling=limited(60), stop_ids=())]
    requests += [Request(prompt, sampling=limited(4), stop_ids=()) for prompt in asked[1:]]
    steps, together, rows = 0, 0, []
    for _, cohorts in engine._steps(requests):
        steps += 1
        together += len(cohorts) > 1
        rows.append(sum(cohort.live for cohort in cohorts))
    assert max(rows) <= 8
    assert together > 10, "cohorts of different ages are served by one step"
    assert 60 <= steps < 70
    done = [completion for (completion,) in engine.generate(requests)]
    assert [len(completion.tokens) for completion in done] == [60] + [4] * 30


def test_rows_that_have_ended_leave(engine: Engine) -> None:
    """Seven of eight rows end early: what is carried on shrinks to the one that has not."""
    requests = [
        Request(prompt, sampling=limited(40 if i == 3 else 2), stop_ids=()) for i, prompt in enumerate(prompts(8))
    ]
    carried = [sum(len(cohort.ids) for cohort in cohorts) for _, cohorts in engine._steps(requests)]
    assert carried[0] == 8
    assert set(carried[3:]) == {1}


def test_a_prompt_is_kept_once_for_its_samples(engine: Engine) -> None:
    prompt = [3 + i % 100 for i in range(120)]
    request = Request(prompt, n=8, sampling=limited(10), stop_ids=())
    sizes = {cohorts[0].cache.size for _, cohorts in engine._steps([request])}
    assert max(sizes) == 120 + 8 * 10, "places for the prompt once, and ten for each sample"
    apart = [Request(prompt, sampling=limited(10), stop_ids=(), first=i) for i in range(8)]
    assert max(cohorts[0].cache.size for _, cohorts in engine._steps(apart)) == 8 * (120 + 10)


def test_each_request_has_its_own_sampling_and_seed(engine: Engine) -> None:
    """Side by side: greedy, hot and filtered rows keep to their own rules, and equal seeds give equal texts."""
    prompt = prompts(1)[0]
    greedy, again = Sampling(temperature=0, max_new_tokens=12), limited(12, seed=7)
    hot = Sampling(temperature=5.0, max_new_tokens=12, seed=7)
    narrow = Sampling(top_k=1, max_new_tokens=12, seed=9)
    found = engine.generate([Request(prompt, sampling=s, stop_ids=()) for s in (greedy, again, again, hot, narrow)])
    first, second, third, fourth, fifth = (completion.tokens for (completion,) in found)
    assert second == third
    assert fifth == first, "the likeliest token alone is greedy"
    assert len({tuple(tokens) for tokens in (first, second, fourth)}) == 3
    other = engine.generate([Request(prompt, sampling=limited(12, seed=8), stop_ids=())])[0][0].tokens
    assert other != second


def test_a_common_beginning_is_computed_once() -> None:
    """Nine prompts behind one system message: its tokens go through the decoder once, and what is written, with its
    log-probabilities, is what each prompt gives alone."""
    model = decoder(shape())
    system = [3 + i * 7 % 120 for i in range(80)]
    asked = [system + prompt for prompt in prompts(9, longest=20)]
    seen: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    together = Engine((model, None), max_rows=16)
    found = together.generate(
        [Request(p, n=1 + i % 2, sampling=limited(12, i), stop_ids=()) for i, p in enumerate(asked)]
    )
    handle.remove()
    own = sum(len(prompt) for prompt in asked) - 9 * 80
    assert seen[0] <= -(-(80 + own) // 64) * 64
    for i, (prompt, completions) in enumerate(zip(asked, found, strict=True)):
        alone = together.generate([Request(prompt, n=1 + i % 2, sampling=limited(12, i), stop_ids=())])[0]
        assert [c.tokens for c in completions] == [c.tokens for c in alone]
        for one, other in zip(completions, alone, strict=True):
            assert one.model_logp == pytest.approx(other.model_logp, abs=1e-4)


@pytest.mark.parametrize(
    ("asked", "shared"),
    [
        ([[1] * 50, [1] * 60], 49),  # a token of each is left
        ([[1] * 40 + [2] * 9, [1] * 40 + [3] * 9], 40),
        ([[1] * 31 + [2] * 9, [1] * 31 + [3] * 9], 0),  # too few to pay
        ([[1] * 50], 0),
        ([[1] * 50, [1] * 5], 0),
        ([[1] * 50, [2] + [1] * 49], 0),
    ],
)
def test_what_counts_as_a_common_beginning(asked: list[list[int]], shared: int) -> None:
    assert common_beginning([np.asarray(prompt) for prompt in asked]) == shared

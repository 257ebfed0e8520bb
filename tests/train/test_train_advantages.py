"""Advantages against the numbers of SPEC J and N (J2, J6, J7) and literal formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fledge.train.advantages import (
    RunningMean,
    group_advantages,
    kl_shaped,
    leave_one_out,
    overlong_penalty,
    process_advantages,
    whiten,
)


def test_group_advantages() -> None:
    """SPEC J.5: [1,0,0,1] and [1,0,0,0] by the sample's and by the population's deviation; equal rewards -> 0."""
    for rewards, sample, population in (
        ([1, 0, 0, 1], [0.86588, -0.86588, -0.86588, 0.86588], [0.9998, -0.9998, -0.9998, 0.9998]),
        ([1, 0, 0, 0], [1.49970, -0.49990, -0.49990, -0.49990], [1.73165, -0.57722, -0.57722, -0.57722]),
    ):
        assert group_advantages(rewards).tolist() == pytest.approx(sample, abs=2e-5)
        assert group_advantages(rewards, deviation="population").tolist() == pytest.approx(population, abs=2e-5)
    assert group_advantages([1, 0, 0, 1], scale=False).tolist() == [0.5, -0.5, -0.5, 0.5]
    assert group_advantages([0.1] * 3).tolist() == [0, 0, 0]  # whose mean is not .1 in floating point
    assert group_advantages([1.0]).tolist() == [0]
    assert group_advantages([]).tolist() == []


def test_leave_one_out() -> None:
    """SPEC J.4: [1,0,0,1] -> .66667; [1,0,0,0] -> 1, -.33333; the group's times n/(n-1)."""
    assert leave_one_out([1, 0, 0, 1]).tolist() == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    assert leave_one_out([1, 0, 0, 0]).tolist() == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])
    rewards = np.random.default_rng(0).normal(size=7)
    np.testing.assert_allclose(leave_one_out(rewards), group_advantages(rewards, scale=False) * 7 / 6)
    literal = [r - np.mean(np.delete(rewards, i)) for i, r in enumerate(rewards)]
    np.testing.assert_allclose(leave_one_out(rewards), literal)
    with pytest.raises(ValueError, match="at least 2"):
        leave_one_out([1.0])


def test_kl_in_the_reward() -> None:
    """SPEC N, J2."""
    shaped = kl_shaped(1.0, [-1, -0.5, -2], [-1.2, -0.4, -1.5], 0.04)
    assert shaped.tolist() == pytest.approx([-0.008, 0.004, 1.02])
    assert kl_shaped(1.0, [-1, -0.5, -2], [-1, -0.5, -2], 0.04).tolist() == [0, 0, 1]


def test_process_advantages() -> None:
    """Normalised over all steps of the group: [1,0 | 1 | 0,0], mean .4, sample deviation .5477; then sums of what is
    to come. With one step an answer it is the group's advantage."""
    (first, second, third) = process_advantages([[1, 0], [1], [0, 0]], epsilon=0.0)
    up, down = 0.6 / 0.3**0.5, -0.4 / 0.3**0.5
    assert first.tolist() == pytest.approx([up + down, down])
    assert second.tolist() == pytest.approx([up])
    assert third.tolist() == pytest.approx([2 * down, down])
    ones = process_advantages([[1.0], [0.0], [0.0], [1.0]])
    np.testing.assert_allclose(np.concatenate(ones), group_advantages([1, 0, 0, 1]))
    assert [part.tolist() for part in process_advantages([[0.5, 0.5], [0.5]])] == [[0, 0], [0]]


def test_whiten() -> None:
    values = np.random.default_rng(1).normal(3, 2, 50)
    white = whiten(values)
    assert white.mean() == pytest.approx(0, abs=1e-12)
    assert white.std() == pytest.approx(1)
    assert whiten(values, centre=False).mean() == pytest.approx(values.mean())
    assert whiten([2.0, 2.0]).tolist() == [0, 0]
    assert whiten([]).tolist() == []


def test_overlong() -> None:
    """SPEC N, J7."""
    lengths = (16_384, 17_408, 18_432, 20_480, 20_481)
    assert [overlong_penalty(n, 20_480, 4096) for n in lengths] == [0, -0.25, -0.5, -1, -1]


def test_running_mean() -> None:
    """That of all values ever added, through a state of JSON; with a decay, recent ones count more."""
    generator = np.random.default_rng(2)
    parts = [generator.normal(loc, 1, size) for loc, size in ((0, 3), (5, 1), (1, 8), (0, 0))]
    running = RunningMean()
    assert (running.mean, running.deviation) == (0, 0)
    for part in parts:
        running.add(part)
        other = RunningMean()
        other.load_state(json.loads(json.dumps(running.state())))
        running = other
    every = np.concatenate(parts)
    assert (running.mean, running.deviation) == pytest.approx((every.mean(), every.std()))
    faded = RunningMean(decay=0.5)
    faded.add([0.0, 0.0])
    faded.add([1.0])
    assert faded.mean == pytest.approx(0.5)  # weights 2 x .5 and 1
    assert faded.deviation == pytest.approx(0.5)

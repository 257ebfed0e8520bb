"""Measures of a reward model, on cases that are worked out by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from fledge.reward import quality


def test_accuracy_counts_ties_half() -> None:
    better, worse = np.array([1.0, 0.0, 2.0, 5.0]), np.array([0.0, 1.0, 2.0, 4.0])
    assert quality.accuracy(better, worse) == 2.5 / 4


def test_wilson() -> None:
    """Newcombe 1998, table I: 81 of 263 -> .2553 to .3662; 0 of 20 -> 0 to .1611."""
    assert quality.wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert quality.wilson(0.0, 20) == pytest.approx((0, 0.1611), abs=5e-5)


def test_accuracy_by_margin() -> None:
    """Buckets of about as many pairs each, every pair in one; one bucket where all margins are equal."""
    margin = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
    right = np.array([0.0, 1, 0, 1, 1, 1, 1, 1])
    rows = quality.accuracy_by_margin(right * 2 - 1, np.zeros(8), margin)
    assert [row["pairs"] for row in rows] == [2, 2, 2, 2]
    assert [row["accuracy"] for row in rows] == [0.5, 0.5, 1, 1]
    assert [(row["low"], row["high"]) for row in rows] == [(1, 2), (3, 4), (5, 6), (7, 8)]
    (row,) = quality.accuracy_by_margin(right, np.zeros(8), np.ones(8))
    assert (row["pairs"], row["low"], row["high"]) == (8, 1, 1)
    uneven = quality.accuracy_by_margin(right, np.zeros(8), np.array([1.0, 1, 1, 1, 1, 2, 3, 3]))
    assert sum(row["pairs"] for row in uneven) == 8


def test_calibration() -> None:
    """Ten pairs with a gap of ln 4: confidence .8. Right 8 times: no error; 5 times: .3."""
    gap = np.full(10, math.log(4))
    for wrong, error in ((2, 0.0), (5, 0.3)):
        better = np.where(np.arange(10) < wrong, -gap, gap)
        found = quality.calibration(better, np.zeros(10))
        assert found["expected_calibration_error"] == pytest.approx(error, abs=1e-12)
        (row,) = found["reliability"]
        assert row == pytest.approx({"confidence": 0.8, "right": 1 - wrong / 10, "pairs": 10})
    certain = quality.calibration(np.array([1000.0, 0.0]), np.array([0.0, 0.0]))["reliability"]
    assert [row["confidence"] for row in certain] == pytest.approx([0.5, 1.0])


def test_spearman() -> None:
    x = np.array([1.0, 2, 3, 4, 5])
    assert quality.spearman(x, np.exp(x)) == pytest.approx(1)
    assert quality.spearman(x, -x) == pytest.approx(-1)
    assert quality.spearman(x, np.ones(5)) == 0
    # ties have their mean rank: 1.5, 1.5, 3 against 1, 2, 3
    assert quality.spearman(np.array([0.0, 0, 1]), np.array([0.0, 1, 2])) == pytest.approx(math.sqrt(3) / 2)


def test_best_of_n_is_the_mean_over_all_draws() -> None:
    rng = np.random.default_rng(0)
    rewards, scores = rng.normal(size=(3, 6)), rng.integers(0, 2, (3, 6)).astype(float)
    curve = quality.best_of_n(rewards, scores, [1, 2, 4, 6, 8])
    assert list(curve) == [1, 2, 4, 6]
    for n, value in curve.items():
        draws = list(itertools.combinations(range(6), n))
        every = [scores[q, draw[int(rewards[q, list(draw)].argmax())]] for q in range(3) for draw in draws]
        assert value == pytest.approx(np.mean(every))
    level = quality.best_of_n(np.zeros((3, 6)), scores, [1, 6])
    assert level[6] == pytest.approx(level[1])  # a model that says nothing chooses at random

"""Estimators, with the vectors of SPEC K.2."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from fledge.evaluate.metrics import estimate, paired_difference, pass_at_k, pass_hat_k


@pytest.mark.parametrize(
    ("n", "c", "k", "value"), [(10, 3, 1, 0.3), (10, 3, 5, 0.916667), (20, 1, 10, 0.5), (5, 0, 3, 0.0), (5, 3, 3, 1.0)]
)
def test_pass_at_k(n: int, c: int, k: int, value: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(value, abs=5e-7)


@pytest.mark.parametrize(("n", "c", "k", "value"), [(4, 3, 2, 0.5), (4, 1, 2, 0.0), (4, 4, 4, 1.0)])
def test_pass_hat_k(n: int, c: int, k: int, value: float) -> None:
    assert pass_hat_k(n, c, k) == pytest.approx(value)


def test_estimators_equal_counting_all_draws() -> None:
    for n, c in itertools.product(range(1, 7), range(7)):
        for k in range(1, n + 1):
            if c > n:
                continue
            draws = list(itertools.combinations([1] * c + [0] * (n - c), k))
            assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))
            assert pass_hat_k(n, c, k) == pytest.approx(sum(map(all, draws)) / len(draws))


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, 1, 0), (3, 1, 4), (3, -1, 1)])
def test_impossible_counts(n: int, c: int, k: int) -> None:
    for function in (pass_at_k, pass_hat_k):
        with pytest.raises(ValueError, match="impossible counts"):
            function(n, c, k)


def test_interval_of_a_proportion() -> None:
    found = estimate([1.0] * 50 + [0.0] * 50, 4000)
    assert (found.mean, found.n) == (0.5, 100)
    # normal approximation: 0.5 +- 1.96 * sqrt(0.25 / 100)
    assert found.low == pytest.approx(0.402, abs=0.015)
    assert found.high == pytest.approx(0.598, abs=0.015)


def test_coverage() -> None:
    """Of 200 samples from a known mean about 95% of the intervals hold it."""
    rng = random.Random(0)
    held = 0
    for trial in range(200):
        found = estimate([float(rng.random() < 0.7) for _ in range(80)], 400, seed=trial)
        held += found.low <= 0.7 <= found.high
    assert 0.90 <= held / 200 <= 0.99


def test_seeded() -> None:
    rng = random.Random(1)
    values = [rng.random() for _ in range(30)]
    assert estimate(values, 100, seed=1) == estimate(values, 100, seed=1)
    assert estimate(values, 100, seed=1) != estimate(values, 100, seed=2)


def test_large_samples_go_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(300) / 300
    whole = estimate(values.tolist(), 50)
    monkeypatch.setattr("fledge.evaluate.metrics._CHUNK", 1000)
    assert estimate(values.tolist(), 50) == whole


def test_pairs_are_narrower_than_two_samples() -> None:
    rng = random.Random(0)
    ours = [float(rng.random() < 0.5) for _ in range(200)]
    theirs = [1.0 if number % 10 == 0 else value for number, value in enumerate(ours)]
    found = paired_difference(ours, theirs)
    assert found.low > 0
    assert found.high - found.low < 0.1
    assert found.mean == pytest.approx(np.mean(theirs) - np.mean(ours))


def test_no_values_and_bad_values() -> None:
    with pytest.raises(ValueError, match="no values"):
        estimate([])
    with pytest.raises(ValueError, match="not finite"):
        estimate([float("nan")])
    with pytest.raises(ValueError, match="not pairs"):
        paired_difference([1.0], [1.0, 0.0])

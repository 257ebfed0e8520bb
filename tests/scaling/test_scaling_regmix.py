"""RegMix's arithmetic on laws that are known: what it should find is computed, not trained."""

from __future__ import annotations

import numpy as np
import pytest

from fledge.core.errors import ConfigError
from fledge.scaling.regmix import best_of, fit_lightgbm, fit_ridge, sample, spearman, spearman_interval

PRIOR = np.array([0.6, 0.25, 0.1, 0.05])
FREE = np.ones(4)


def law(shares: np.ndarray) -> np.ndarray:
    """Two sources help, as powers of their shares; a third does nothing; a fourth harms."""
    return 1.5 + 0.5 * (shares[:, 1] + 0.05) ** -0.3 + 0.8 * (shares[:, 2] + 0.05) ** -0.3 + 0.4 * shares[:, 3]


def mixtures(count: int, seed: int, most: np.ndarray = FREE) -> np.ndarray:
    return sample(PRIOR, count, 1e-3, most, np.random.default_rng(seed))


def test_mixtures_keep_their_bounds_and_spread() -> None:
    most = np.array([1.0, 1.0, 0.4, 0.2])
    found = mixtures(500, 0, most)
    assert found.shape == (500, 4)
    assert found.sum(1) == pytest.approx(np.ones(500))
    assert found.min() >= 1e-3
    assert (found <= most).all()
    assert found[:, 0].min() < 0.1
    assert found[:, 0].max() > 0.9
    assert (found == mixtures(500, 0, most)).all()
    assert mixtures(20_000, 1).mean(0) == pytest.approx(PRIOR**0.5 / (PRIOR**0.5).sum(), abs=0.02)


def test_bounds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="only 0 keep the bounds"):
        mixtures(10, 0, np.array([0.2, 0.2, 0.2, 0.2]))


def test_the_regression_recovers_a_known_law() -> None:
    noise = np.random.default_rng(7)
    tried = mixtures(64, 0)
    losses = law(tried) * (1 + 0.002 * noise.standard_normal(64))
    regression = fit_ridge(tried, losses)
    others = mixtures(256, 1)
    assert spearman(regression(others), law(others)) > 0.98
    simulated = mixtures(10_000, 2)
    best = best_of(regression, simulated, 100)
    true = simulated[np.argsort(law(simulated))[:100]].mean(0)
    assert law(best[None])[0] <= np.quantile(law(simulated), 0.01)  # among the best hundredth of all
    assert law(best[None])[0] == pytest.approx(law(true[None])[0], rel=0.02)
    assert best[2] > best[1] > best[0] > 0  # more of what helps more
    assert best[3] < 0.05


def test_trees_recover_its_order() -> None:
    pytest.importorskip("lightgbm")
    tried, others = mixtures(256, 0), mixtures(256, 1)
    regression = fit_lightgbm(tried, law(tried), 0)
    assert spearman(regression(others), law(others)) > 0.9


def test_rank_correlation() -> None:
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([10.0, 20, 25, 90])) == 1
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([4.0, 3, 2, 1])) == -1
    assert spearman(np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 4])) == pytest.approx(0.9487, abs=1e-4)
    assert spearman(np.ones(4), np.arange(4.0)) == 0
    low, high = spearman_interval(0.9, 20)
    assert (low, high) == pytest.approx((0.754, 0.961), abs=0.001)
    low, high = spearman_interval(1.0, 8)
    assert 0.8 < low < high < 1


def test_the_interval_holds_what_it_promises() -> None:
    """Of 400 samples from a normal pair with a Spearman of 0.786 (Pearson 0.8), 95% of the intervals hold it."""
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(400):
        a = generator.standard_normal(16)
        b = 0.8 * a + 0.6 * generator.standard_normal(16)
        low, high = spearman_interval(spearman(a, b), 16)
        held += low <= 6 / np.pi * np.arcsin(0.4) <= high
    assert 0.92 <= held / 400 <= 0.99

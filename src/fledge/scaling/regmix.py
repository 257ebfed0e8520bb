"""The arithmetic of RegMix (Liu et al., 2024, arXiv 2407.01492): mixtures to try, a regression of the loss, the best.

A mixture is a row of k shares that sum to 1. Mixtures are drawn around the prior, which is how the tokens lie in the
corpus: from Dirichlet distributions of ``prior^0.5`` times strengths from 0.1 (nearly one source alone) to 5 (nearly
the prior). Those that a bound forbids are thrown away, so the regression is never asked about what was never sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fledge.core.errors import ConfigError

STRENGTHS = np.logspace(np.log10(0.1), np.log10(5.0), 15)
TEMPERATURE = 0.5
OVERSAMPLED = 100  # mixtures that are drawn at most for one that is wanted
_OFFSETS = np.logspace(-3, 0, 7)  # and penalties: of the ridge, from which leave-one-out chooses
_PENALTIES = np.logspace(-6, 3, 37)


def sample(prior: np.ndarray, count: int, least: float, most: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(count, k) mixtures whose shares are at least ``least`` and at most ``most`` (k,), each a share. Raises
    `ConfigError` where the bounds leave next to nothing."""
    size = len(prior)
    soft = prior**TEMPERATURE / (prior**TEMPERATURE).sum()
    kept = np.empty((0, size))
    for _ in range(OVERSAMPLED // 2):
        strength = generator.choice(STRENGTHS, 2 * count)
        drawn = generator.standard_gamma(strength[:, None] * soft) + np.finfo(float).tiny
        shares = least + (1 - size * least) * drawn / drawn.sum(1, keepdims=True)
        kept = np.concatenate([kept, shares[(shares <= most).all(1)]])
        if len(kept) >= count:
            return kept[:count]
    raise ConfigError(
        f"of {OVERSAMPLED * count:,} mixtures drawn only {len(kept)} keep the bounds (max_epochs leaves shares of at "
        f"most {np.round(most, 4).tolist()}): raise max_epochs, or plan with fewer tokens"
    )


class Regression(Protocol):
    """Mixtures (n, k) -> predicted losses (n,)."""

    def __call__(self, shares: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Ridge:
    """``log loss = a + sum_i b_i w_i + c_i log(w_i + offset)``: what falls with a source falls as a power of its share,
    what is harmful grows with it, and ``offset`` is what the other sources teach of it."""

    offset: float
    penalty: float
    centre: np.ndarray
    scale: np.ndarray
    weight: np.ndarray
    bias: float

    def __call__(self, shares: np.ndarray) -> np.ndarray:
        x = (_features(shares, self.offset) - self.centre) / self.scale
        result: np.ndarray = np.exp(x @ self.weight + self.bias)
        return result


def fit_ridge(shares: np.ndarray, losses: np.ndarray) -> Ridge:
    """Offset and penalty are those with the least squared error of leave-one-out predictions (a closed form)."""
    y = np.log(losses)
    bias = float(y.mean())
    best: tuple[float, Ridge] | None = None
    for offset in _OFFSETS:
        x = _features(shares, offset)
        centre, scale = x.mean(0), np.maximum(x.std(0), 1e-12)
        left, singular, right = np.linalg.svd((x - centre) / scale, full_matrices=False)
        along = left.T @ (y - bias)
        for penalty in _PENALTIES:
            shrink = singular**2 / (singular**2 + penalty)
            leverage = (left**2 * shrink).sum(1) + 1 / len(y)
            errors = (y - bias - left @ (shrink * along)) / np.maximum(1 - leverage, 1e-9)
            score = float((errors**2).mean())
            if best is None or score < best[0]:
                weight = right.T @ (singular / (singular**2 + penalty) * along)
                best = score, Ridge(float(offset), float(penalty), centre, scale, weight, bias)
    assert best is not None
    return best[1]


def fit_lightgbm(shares: np.ndarray, losses: np.ndarray, seed: int) -> Regression:
    """RegMix's own: 1,000 rounds at a rate of 0.01, stopped where three more do not help a tenth kept apart."""
    try:
        import lightgbm
    except ImportError:
        raise ConfigError("regression: lightgbm is not installed: pip install 'fledge[mixture]', or ridge") from None
    order = np.random.default_rng(seed).permutation(len(losses))
    apart = max(1, len(losses) // 10)
    train = lightgbm.Dataset(shares[order[apart:]], losses[order[apart:]])
    check = lightgbm.Dataset(shares[order[:apart]], losses[order[:apart]], reference=train)
    settings = {
        "objective": "regression", "metric": "l2", "learning_rate": 1e-2, "seed": 42, "verbosity": -1, "num_threads": 1,
        "deterministic": True, "min_data_in_leaf": max(2, min(20, len(losses) // 10)),
    }  # fmt: skip
    model = lightgbm.train(
        settings, train, 1000, valid_sets=[check], callbacks=[lightgbm.early_stopping(3, verbose=False)]
    )

    def predict(shares: np.ndarray) -> np.ndarray:
        return np.asarray(model.predict(shares), np.float64)

    return predict


def _features(shares: np.ndarray, offset: float) -> np.ndarray:
    return np.concatenate([shares, np.log(shares + offset)], axis=1)


def best_of(regression: Regression, mixtures: np.ndarray, averaged: int) -> np.ndarray:
    """(k,) the mean of the ``averaged`` mixtures with the least predicted loss: the very best one is the regression's
    error as much as its insight."""
    order = np.argsort(regression(mixtures), kind="stable")[:averaged]
    mean: np.ndarray = mixtures[order].mean(0)
    return mean / mean.sum()


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation; ties have the mean of their ranks. 0 where all of one are equal."""
    a, b = _ranks(one), _ranks(other)
    a, b = a - a.mean(), b - b.mean()
    norm = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float(a @ b) / norm if norm else 0.0


def spearman_interval(rho: float, count: int) -> tuple[float, float]:
    """95%, by Fisher's z with the variance 1.06 / (n - 3) of Fieller, Hartley & Pearson (1957). A perfect order counts
    as one exchange of neighbours away from it, or its interval would be a point."""
    if count < 4:
        return -1.0, 1.0
    one_exchange = 1 - 12 / (count * (count**2 - 1))
    z = np.arctanh(np.clip(rho, -one_exchange, one_exchange))
    half = 1.96 * np.sqrt(1.06 / (count - 3))
    return float(np.tanh(z - half)), float(np.tanh(z + half))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: np.ndarray = (last - (counts - 1) / 2)[place]
    return ranks

"""Estimators: means with bootstrap intervals, paired differences, pass@k and pass^k (SPEC K.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_CHUNK = 1 << 22  # resampled values at a time: 32 MiB


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` items with the 95% interval of its bootstrap distribution over items."""

    mean: float
    low: float
    high: float
    n: int

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def estimate(values: Sequence[float], resamples: int = 1000, seed: int = 0) -> Estimate:
    """Mean and percentile bootstrap interval (Efron 1979) over items. Where all items score alike the interval is a
    point: the bootstrap cannot see what the sample does not hold, so read it together with `n`."""
    if len(values) == 0:
        raise ValueError("no values")
    data = np.asarray(values, dtype=np.float64)
    if not np.isfinite(data).all():
        raise ValueError("a value is not finite")
    means = _resampled_means(data, resamples, seed)
    low, high = np.quantile(means, [0.025, 0.975]) if resamples else (float("nan"), float("nan"))
    return Estimate(float(data.mean()), float(low), float(high), len(data))


def share(parts: Sequence[float], wholes: Sequence[float], resamples: int = 1000, seed: int = 0) -> Estimate:
    """sum(parts) / sum(wholes) over items, as the instructions followed of those given, with the interval of the
    bootstrap over items: what belongs to one item is drawn together, since it stands or falls with one reply."""
    if len(parts) != len(wholes) or not len(wholes) or min(wholes) <= 0:
        raise ValueError("each item needs a part and a whole above 0")
    above, below = np.asarray(parts, np.float64), np.asarray(wholes, np.float64)
    # The same seed draws the same items for both.
    means = _resampled_means(above, resamples, seed) / _resampled_means(below, resamples, seed)
    low, high = np.quantile(means, [0.025, 0.975]) if resamples else (float("nan"), float("nan"))
    return Estimate(float(above.sum() / below.sum()), float(low), float(high), int(below.sum()))


def paired_difference(ours: Sequence[float], theirs: Sequence[float], resamples: int = 1000, seed: int = 0) -> Estimate:
    """Mean of `theirs - ours` over the same items, with the paired bootstrap interval: items are drawn, not scores."""
    if len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} values are not pairs")
    return estimate((np.asarray(theirs, float) - np.asarray(ours, float)).tolist(), resamples, seed)


def wilson(successes: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's 95% interval of a share (1927): within [0, 1] and no point where all or none succeed."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"impossible counts: {successes} of {n}")
    share, spread = successes / n, z * z / n
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided p of McNemar's exact test (1947): of the items that changed, as many were lost as gained."""
    n, fewer = lost + gained, min(lost, gained)
    if min(lost, gained) < 0:
        raise ValueError(f"impossible counts: {lost} lost, {gained} gained")
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)


def _resampled_means(data: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(resamples,) means of samples drawn with replacement."""
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(data))
    parts = []
    for start in range(0, resamples, rows):
        drawn = rng.integers(0, len(data), size=(min(rows, resamples - start), len(data)))
        parts.append(data[drawn].mean(axis=1))
    return np.concatenate(parts) if parts else np.empty(0)


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Probability that at least one of `k` samples drawn from `n`, of which `correct` are right, is right.

    Unbiased estimator of Chen et al. 2021 (2107.03374), eq. 1, as a product.
    """
    _check_counts(n, correct, k)
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))


def pass_hat_k(n: int, correct: int, k: int) -> float:
    """Probability that all of `k` samples drawn from `n` are right: C(correct, k) / C(n, k) (tau-bench, 2406.12045)."""
    _check_counts(n, correct, k)
    return math.comb(correct, k) / math.comb(n, k)


def _check_counts(n: int, correct: int, k: int) -> None:
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"impossible counts: {correct} right of {n} samples, k = {k}")

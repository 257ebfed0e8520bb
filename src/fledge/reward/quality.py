"""How good a reward model is, from the rewards that it gives: pure functions of arrays (SPEC J.1).

P pairs with rewards ``better`` and ``worse`` (P,) of the answer that was preferred and of the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
BINS = 10  # of confidence, from a half to one


def accuracy(better: Values, worse: Values) -> float:
    """Share of pairs that the rewards order as they were preferred; a tie counts half."""
    return float(hits(better, worse).mean())


def hits(better: Values, worse: Values) -> Values:
    """(P,) 1, .5 where both have one reward, 0."""
    gap: Values = np.sign(better - worse)
    return (gap + 1) / 2


def wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% interval of a share of ``count`` (Wilson 1927): never outside [0, 1], and never a point."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def accuracy_by_margin(better: Values, worse: Values, margin: Values, buckets: int = 4) -> list[dict[str, float]]:
    """Accuracy of pairs by how much better one answer was said to be: ``margin`` (P,) cut at its quantiles, so that the
    buckets hold about as many pairs each; fewer where many margins are one number."""
    edges = np.unique(np.quantile(margin, np.linspace(0, 1, buckets + 1)))
    place = np.clip(np.searchsorted(edges, margin, side="right") - 1, 0, max(0, len(edges) - 2))
    right = hits(better, worse)
    return [
        {
            "low": float(margin[place == k].min()), "high": float(margin[place == k].max()),
            "pairs": float((place == k).sum()), "accuracy": float(right[place == k].mean()),
        }
        for k in np.unique(place)
    ]  # fmt: skip


def calibration(better: Values, worse: Values, bins: int = BINS) -> dict[str, Any]:
    """Whether s(|r+ - r-|), the confidence in the answer that the model prefers, is how often it is right.

    ``expected_calibration_error``: mean over pairs of |share right - mean confidence| of their bin (Guo et al. 2017,
    1706.04599, eq. 3); ``reliability``: the bins that hold pairs, from confidence 1/2 to 1.
    """
    confidence = 1 / (1 + np.exp(-np.abs(better - worse)))
    right = hits(better, worse)
    place = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    rows = [
        {
            "confidence": float(confidence[place == k].mean()), "right": float(right[place == k].mean()),
            "pairs": float((place == k).sum()),
        }
        for k in np.unique(place)
    ]  # fmt: skip
    error = sum(row["pairs"] * abs(row["right"] - row["confidence"]) for row in rows) / len(better)
    return {"expected_calibration_error": float(error), "reliability": rows}


def spearman(x: Values, y: Values) -> float:
    """Correlation of ranks, ties at their mean rank; 0 where either is constant."""
    a, b = (_ranks(np.asarray(v, np.float64)) for v in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / scale) if scale else 0.0


def _ranks(values: Values) -> Values:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: Values = (last - (count - 1) / 2)[place]
    return ranks


def best_of_n(rewards: Values, scores: Values, sizes: Sequence[int]) -> dict[int, float]:
    """Expected score of the answer of highest reward among n, drawn without replacement from the N of each prompt.

    ``rewards`` and ``scores`` (Q, N): by the reward model, and by what is trusted (gold). Exact over all draws: the
    answer at place i (from 1, by rising reward) is the best of C(i-1, n-1) of the C(N, n) draws. Answers of one reward
    share their places.
    """
    count = rewards.shape[1]
    ordered = np.stack([_by_reward(r, s) for r, s in zip(rewards, scores, strict=True)])  # (Q, N)
    curve = {}
    for n in sizes:
        if n <= count:
            chance = np.array([math.comb(i, n - 1) for i in range(count)], np.float64) / math.comb(count, n)
            curve[n] = float((ordered @ chance).mean())
    return curve


def _by_reward(rewards: Values, scores: Values) -> Values:
    """Scores by rising reward; each of a tie has their mean."""
    _, place, count = np.unique(rewards, return_inverse=True, return_counts=True)
    mean = np.bincount(place, weights=scores) / count
    return np.asarray(np.repeat(mean, count), np.float64)

"""Multinomial logistic regression on hashed features: gradient steps with AdaGrad, averaged, in NumPy.

Deterministic: sums are made by `numpy.bincount` in the order of the words, on one thread, so the same texts and seed
give the same bytes on any number of cores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from fledge.core.config import Config

Floats = np.ndarray


class FitConfig(Config):
    """How the weights are found."""

    epochs: int = Field(5, ge=1, description="passes over the training texts")
    batch: int = Field(64, ge=1, description="texts of a step")
    rate: float = Field(0.1, gt=0, description="AdaGrad's learning rate (Duchi et al. 2011)")


@dataclass
class Linear:
    """``weight`` (labels, buckets + 1) float32, the last column 0; ``bias`` (labels,) float32."""

    weight: Floats
    bias: Floats

    def logits(self, buckets: np.ndarray, starts: np.ndarray) -> Floats:
        """(texts, labels) float64: sums of weights over the square root of their number.

        A mean, as in fastText, would call a long text no surer than a short one; a sum would take each word for a
        witness of its own. On two real pairs of sets (920 and 2,665 pieces, five splits, each way at its best rate)
        held-out cross entropy was, root, mean, sum: .142, .137, .292 and .029, .024, .028 nats. Root and mean do not
        differ by more than the splits do.
        """
        labels = len(self.weight)
        result = np.empty((len(starts) - 1, labels), np.float64)
        size = np.sqrt(counts(buckets, starts, self.weight.shape[1] - 1))
        for label in range(labels):
            per_word = self.weight[label].take(buckets[:, 0])
            for n in range(1, buckets.shape[1]):
                per_word += self.weight[label].take(buckets[:, n])
            result[:, label] = np.add.reduceat(per_word, starts[:-1]) / size + self.bias[label]
        return result


def counts(buckets: np.ndarray, starts: np.ndarray, missing: int) -> np.ndarray:
    """(texts,) how many n-grams each text has."""
    there = np.full(len(buckets), buckets.shape[1], np.int64)
    for n in range(1, buckets.shape[1]):
        there -= buckets[:, n] == missing
    return np.add.reduceat(there, starts[:-1])


def softmax(logits: Floats) -> Floats:
    """(n, labels) -> (n, labels), rows sum to 1."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def fit(
    buckets: np.ndarray, starts: np.ndarray, labels: np.ndarray, weight: Floats, size: int, config: FitConfig,
    seed: int, on_step: Callable[[int], None] = lambda texts: None,
) -> Linear:  # fmt: skip
    """Least cross entropy of ``labels`` (texts,) int, each text counting ``weight`` (texts,). ``size``: buckets.

    The result is the mean of the weights after every step but those of the first pass (Polyak and Juditsky 1992),
    which follows the order of the texts less than the last step does.
    """
    number = int(labels.max()) + 1
    model = Linear(np.zeros((number, size + 1), np.float32), np.zeros(number, np.float32))
    squares, bias_squares = np.full((number, size + 1), 1e-8, np.float32), np.full(number, 1e-8, np.float32)
    mean, bias_mean, steps = np.zeros((number, size + 1), np.float32), np.zeros(number, np.float32), 0
    rng = np.random.default_rng(seed)
    for epoch in range(config.epochs):
        order = rng.permutation(len(labels))
        for at in range(0, len(order), config.batch):
            chosen = order[at : at + config.batch]
            some, places = gather(buckets, starts, chosen)
            error = softmax(model.logits(some, places))
            error[np.arange(len(chosen)), labels[chosen]] -= 1
            error *= (weight[chosen] / len(chosen))[:, None]
            _step(model, squares, bias_squares, some, places, error, config.rate)
            if epoch > 0 or config.epochs == 1:
                steps += 1
                mean += (model.weight - mean) / steps
                bias_mean += (model.bias - bias_mean) / steps
            on_step(len(chosen))
    return Linear(mean, bias_mean)


def gather(buckets: np.ndarray, starts: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of some texts one behind the other, and where each begins."""
    parts = [buckets[starts[i] : starts[i + 1]] for i in chosen.tolist()]
    places = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=places[1:])
    return np.concatenate(parts), places


def _step(
    model: Linear, squares: Floats, bias_squares: Floats, buckets: np.ndarray, starts: np.ndarray, error: Floats,
    rate: float,
) -> None:  # fmt: skip
    """One AdaGrad step along ``error`` (texts, labels), the gradient by the logits. Changes model and squares."""
    size = model.weight.shape[1] - 1
    error_of_bias = error.sum(axis=0)
    error = error / np.sqrt(counts(buckets, starts, size))[:, None]
    lengths = np.diff(starts)
    used, place = np.unique(buckets, return_inverse=True)  # a step touches few of the buckets
    for label in range(len(model.weight)):
        per_word = np.repeat(error[:, label], lengths)
        gradient = np.bincount(place.ravel(), np.repeat(per_word, buckets.shape[1]), len(used)).astype(np.float32)
        if used[-1] == size:
            gradient[-1] = 0.0
        squares[label, used] += gradient**2
        model.weight[label, used] -= rate * gradient / np.sqrt(squares[label, used])
        bias_squares[label] += error_of_bias[label] ** 2
        model.bias[label] -= rate * error_of_bias[label] / np.sqrt(bias_squares[label])

"""How good a classifier is on texts that it has not seen, and by what it decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from fledge.corpus.scoring.linear import softmax
from fledge.corpus.scoring.quality import Classifier

BINS = 10
_TEMPERATURES = 2.0 ** (np.arange(-24, 25) / 8)  # an eighth to eight
SHOWN = 20  # telling features of a label


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties half (Mann-Whitney). NaN where one side is empty."""
    above = int(positive.sum())
    below = len(positive) - above
    if not above or not below:
        return float("nan")
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((rank[positive].sum() - above * (above + 1) / 2) / (above * below))


def best_temperature(logits: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    """The divisor of the logits with the least weighted cross entropy (Guo et al. 2017, arXiv 1706.04599)."""
    losses = [cross_entropy(softmax(logits / t), labels, weight) for t in _TEMPERATURES]
    return float(_TEMPERATURES[int(np.argmin(losses))])


def cross_entropy(probability: np.ndarray, labels: np.ndarray, weight: np.ndarray) -> float:
    """Nats a text."""
    chosen = np.maximum(probability[np.arange(len(labels)), labels], 1e-12)
    return float(-(weight * np.log(chosen)).sum() / weight.sum())


def measure(probability: np.ndarray, labels: np.ndarray, weight: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Accuracy (each label counting the same), cross entropy, and for each label area under the curve, calibration and
    what a threshold keeps. ``probability`` (texts, labels), ``weight`` (texts,)."""
    right = probability.argmax(axis=1) == labels
    by_label = {name: float(right[labels == number].mean()) for number, name in enumerate(names)}
    return {
        "texts": {name: int((labels == number).sum()) for number, name in enumerate(names)},
        "accuracy": float(np.mean(list(by_label.values()))),
        "recall": by_label,
        "nats": cross_entropy(probability, labels, weight),
        "auc": {name: auc(probability[:, number], labels == number) for number, name in enumerate(names)},
        "calibration_error": float(
            np.mean([_error(calibration(probability[:, n], labels == n, weight)) for n in range(len(names))])
        ),
        "calibration": {
            name: calibration(probability[:, n], labels == n, weight) for n, name in enumerate(names)
        },
        "thresholds": {name: thresholds(probability[:, n], labels == n) for n, name in enumerate(names)},
    }  # fmt: skip


def calibration(score: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> list[dict[str, float]]:
    """Ten bins of the score: weight, mean score, and the share that is truly so."""
    place = np.minimum((score * BINS).astype(int), BINS - 1)
    rows = []
    for number in range(BINS):
        inside = place == number
        total = float(weight[inside].sum())
        if total:
            said, true = (float((weight * value)[inside].sum()) / total for value in (score, positive))
            rows.append({"from": number / BINS, "weight": total, "said": said, "true": true})
    return rows


def _error(rows: list[dict[str, float]]) -> float:
    """Expected calibration error: mean distance of what was said from what is true."""
    total = sum(row["weight"] for row in rows)
    return sum(row["weight"] * abs(row["said"] - row["true"]) for row in rows) / total


def thresholds(score: np.ndarray, positive: np.ndarray) -> list[dict[str, float]]:
    """For each share of its own texts that a label may lose: the least score kept, and the share of others kept."""
    if not positive.any() or positive.all():
        return []
    rows = []
    for lost in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        least = float(np.quantile(score[positive], lost, method="lower"))
        others = float((score[~positive] >= least).mean())
        rows.append({"own_lost": float((score[positive] < least).mean()), "least": least, "others_kept": others})
    return rows


def telling(classifier: Classifier, texts: Sequence[str], languages: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """For each label the n-grams that speak most for it in these texts: their weight against the mean of the labels,
    times the square root of how often they occur. A bucket is named by its most frequent n-gram."""
    size = classifier.features.config.buckets
    against = classifier.linear.weight - classifier.linear.weight.mean(axis=0)
    frequency = np.zeros(size + 1, np.int64)
    for text, language in zip(texts, languages, strict=True):
        frequency += np.bincount(classifier.features([text], [language])[0].ravel(), minlength=size + 1)
    frequency[size] = 0
    force = against * np.sqrt(frequency)
    best = {name: np.argsort(-force[number], kind="stable")[:SHOWN] for number, name in enumerate(classifier.labels)}
    names = _names(classifier, texts, languages, np.unique(np.concatenate(list(best.values()))))

    def row(number: int, bucket: int) -> dict[str, Any]:
        weight = round(float(against[number, bucket]), 3)
        return {"ngram": names[bucket], "weight": weight, "count": int(frequency[bucket])}

    return {
        name: [row(number, bucket) for bucket in buckets.tolist() if force[number, bucket] > 0]
        for number, (name, buckets) in enumerate(best.items())
    }


def _names(
    classifier: Classifier, texts: Sequence[str], languages: Sequence[str], wanted: np.ndarray
) -> dict[int, str]:
    """Bucket -> the n-gram that is in it most often; the first in the alphabet of equals."""
    chosen = np.zeros(classifier.features.config.buckets + 1, bool)
    chosen[wanted] = True
    found: dict[int, Counter[str]] = {int(bucket): Counter() for bucket in wanted}
    for text, language in zip(texts, languages, strict=True):
        buckets, _ = classifier.features([text], [language])
        words = classifier.features.words(text, language)
        for at, n in np.argwhere(chosen[buckets]).tolist():
            found[int(buckets[at, n])][" ".join(words[at : at + n + 1])] += 1
    return {
        bucket: min(names.items(), key=lambda item: (-item[1], item[0]))[0] if names else ""
        for bucket, names in found.items()
    }

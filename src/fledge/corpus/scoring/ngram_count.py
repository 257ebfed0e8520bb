"""Counting an n-gram model: sorted keys, continuation counts, discounts (Chen and Goodman 1998, section 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fledge.corpus.scoring.ngram import Level, NgramModel, framed, number_units
from fledge.corpus.scoring.units import START, Units

Discounts = tuple[float, float, float]
# Where a corpus is too small to have n-grams that occur once, twice, three and four times.
_FALLBACK: Discounts = (0.5, 1.0, 1.5)


@dataclass
class _Grams:
    """The different n-grams of one length. ``keys`` sorted; ``rows`` (places,) of the n-gram that ends at each place of
    the sequence, -1 where none does; ``suffix`` (rows,) row of the last k - 1 units; ``count`` how often it occurs."""

    keys: np.ndarray
    rows: np.ndarray
    suffix: np.ndarray
    count: np.ndarray


@dataclass
class Counted:
    """The model, and what is to be told of it."""

    model: NgramModel
    discounts: list[Discounts] = field(default_factory=list)
    fallback: list[int] = field(default_factory=list)  # orders whose discounts could not be estimated
    ngrams: list[int] = field(default_factory=list)  # kept, by order
    pruned: list[int] = field(default_factory=list)


def count_model(
    units: Units, hashes: np.ndarray, lengths: np.ndarray, order: int, prune: int, least: int,
    on_order: Callable[[int], None] = lambda order: None,
) -> Counted:  # fmt: skip
    """``hashes`` of the units of all texts, ``lengths`` (texts,) how many each has. Units that occur less than
    ``least`` times are one, the unknown. N-grams of order 3 and more that occur ``prune`` times or less are left out:
    their probability goes to the lower order."""
    vocabulary, often = np.unique(hashes, return_counts=True)
    vocabulary = vocabulary[often >= least]
    sequence, starts = framed(number_units(vocabulary, hashes), lengths, order)
    size = len(vocabulary) + 3
    levels = _gather(sequence, starts, order, size, on_order)
    counted = Counted(NgramModel(units, vocabulary, [], 1.0))
    follow = [grams.keys % np.uint64(size) != START for grams in levels]  # a start is never predicted
    adjusted = [
        np.bincount(above.suffix[last], minlength=len(grams.keys))
        for grams, above, last in zip(levels, levels[1:], follow[1:], strict=False)
    ]
    adjusted.append(levels[-1].count)
    masses: list[tuple[np.ndarray, np.ndarray]] = []  # p and whether it is kept, by order
    for k, (grams, counts, last) in enumerate(zip(levels, adjusted, follow, strict=True), 1):
        counts = np.where(last, counts, 0)
        found, usable = discounts(counts)
        counted.discounts.append(found)
        if not usable:
            counted.fallback.append(k)
        kept = grams.count > prune if k > 2 else np.ones(len(counts), bool)
        kept |= ~last
        prefix = (grams.keys // np.uint64(size)).astype(np.int64) if k > 1 else np.zeros(len(counts), np.int64)
        contexts = len(levels[k - 2].keys) if k > 1 else 1
        p, gamma = _interpolate(counts, found, kept, prefix, contexts)
        masses.append((p, kept))
        if k == 1:
            counted.model.uniform = float(gamma[0])
        else:
            counted.model.levels[-1].gamma = gamma.astype(np.float32)
        counted.model.levels.append(Level(grams.keys, p.astype(np.float32), np.ones(len(p), np.float32)))
        counted.ngrams.append(int((kept & last).sum()))
        counted.pruned.append(int((~kept).sum()))
    _prune(counted.model, [kept for _, kept in masses])
    return counted


def _gather(
    sequence: np.ndarray, starts: np.ndarray, order: int, size: int, on_order: Callable[[int], None]
) -> list[_Grams]:
    """All n-grams up to ``order``. A row of order k is numbered by the sorted keys, so each is a sort of one array."""
    begins = np.zeros(len(sequence), np.int64)
    begins[starts] = starts
    within = np.arange(len(sequence)) - np.maximum.accumulate(begins)  # place in the own text
    levels: list[_Grams] = []
    keys = np.arange(size, dtype=np.uint64)  # every unit is a row, whether it occurs or not
    rows = sequence
    levels.append(_Grams(keys, rows, np.zeros(size, np.int64), np.bincount(sequence, minlength=size)))
    on_order(1)
    for k in range(2, order + 1):
        places = np.flatnonzero(within >= k - 1)
        before = levels[-1].rows
        made = before[places - 1].astype(np.uint64) * np.uint64(size) + sequence[places].astype(np.uint64)
        keys, first, place, count = np.unique(made, return_index=True, return_inverse=True, return_counts=True)
        rows = np.full(len(sequence), -1, np.int64)
        rows[places] = place
        levels.append(_Grams(keys, rows, before[places[first]], count))
        on_order(k)
    return levels


def discounts(counts: np.ndarray) -> tuple[Discounts, bool]:
    """(D1, D2, D3+) of n-grams with these counts, and whether there were enough to estimate them."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(float)
    if (n == 0).any():
        return _FALLBACK, False
    y = n[0] / (n[0] + 2 * n[1])
    found = 1 - 2 * y * n[1] / n[0], 2 - 3 * y * n[2] / n[1], 3 - 4 * y * n[3] / n[2]
    if any(not 0 <= d <= most for d, most in zip(found, (1, 2, 3), strict=True)):
        return _FALLBACK, False
    return (float(found[0]), float(found[1]), float(found[2])), True


def _interpolate(
    counts: np.ndarray, discount: Discounts, kept: np.ndarray, prefix: np.ndarray, contexts: int
) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) discounted shares, 0 where not kept; (contexts,) what they leave to the lower order."""
    table = np.array([0.0, *discount])
    taken = np.minimum(table[np.minimum(counts, 3)], counts)
    total = np.bincount(prefix, counts, contexts)
    left = np.bincount(prefix, np.where(kept, taken, counts), contexts)
    over = np.maximum(total, 1)
    gamma = np.where(total > 0, left / over, 1.0)
    return np.where(kept, (counts - taken) / over[prefix], 0.0), gamma


def _prune(model: NgramModel, kept: list[np.ndarray]) -> None:
    """Takes rows away. What is kept has its prefix: that occurs at least as often. Keys stay sorted under new numbers
    of prefixes, because these rise with the old ones."""
    size = np.uint64(model.size)
    numbers = np.arange(model.size, dtype=np.int64)
    for k, keep in enumerate(kept):
        level = model.levels[k]
        keys = level.keys[keep]
        if k:
            keys = numbers[(keys // size).astype(np.int64)].astype(np.uint64) * size + keys % size
        model.levels[k] = Level(keys, level.p[keep], level.gamma[keep])
        numbers = np.cumsum(keep) - 1

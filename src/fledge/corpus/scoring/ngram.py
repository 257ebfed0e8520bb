"""An n-gram language model with modified Kneser-Ney smoothing, interpolated (Chen and Goodman 1998, section 3).

    P(w | h) = max(c(hw) - D(c(hw)), 0) / c(h.) + gamma(h) P(w | h'),    h' = h without its first unit

where D takes one of three values for counts 1, 2, and 3 and more, c below the highest order counts the different units
in front (continuations), and gamma(h) is what the discounts took: so the probabilities of all units after any context
sum to 1. The lowest order is interpolated with the uniform distribution.

N-grams are rows of sorted arrays. Row r of order k is (row of its first k - 1 units) * vocabulary + last unit, one
64-bit key, so looking up is a binary search, and a trie is never built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fledge.corpus.scoring.folder import Format
from fledge.corpus.scoring.units import END, START, UNKNOWN, Units, UnitsConfig

FORMAT = Format("fledge-ngram", 2, "n-gram model", "fledge train-ngram")
TOKENIZER = "tokenizer"  # its folder inside the model's, where units are tokens
_BATCH = 1 << 16  # characters of texts that are looked up together


@dataclass
class Level:
    """All n-grams of one length. ``keys`` (rows,) uint64 sorted; ``p`` (rows,) float32, what is left of their count
    after the discount, over the context's; ``gamma`` (rows,) float32, the share of lower orders where the n-gram is
    the context: 1 where nothing followed it."""

    keys: np.ndarray
    p: np.ndarray
    gamma: np.ndarray


@dataclass
class NgramModel:
    """``vocabulary`` (V,) uint64: sorted hashes of the known units, whose numbers begin behind the three special ones.
    ``levels[0]`` has a row for every number; ``uniform`` is the weight of the uniform distribution below it."""

    units: Units
    vocabulary: np.ndarray
    levels: list[Level]
    uniform: float

    @property
    def order(self) -> int:
        return len(self.levels)

    @property
    def size(self) -> int:
        """Numbers of units: those of the vocabulary, unknown, end, and start, which is never predicted."""
        return len(self.vocabulary) + 3

    def numbers(self, hashes: np.ndarray) -> np.ndarray:
        """(n,) hashes of units -> (n,) int64 numbers."""
        return number_units(self.vocabulary, hashes)

    def log2(self, sequence: np.ndarray) -> np.ndarray:
        """Of a sequence of numbers, in which every text begins with ``order - 1`` starts: (n,) float64 log2 of the
        probability of each, 0 for the starts."""
        size = np.uint64(self.size)
        predicted = sequence != START
        chance = self.levels[0].p[sequence].astype(np.float64) + self.uniform / (self.size - 1)
        rows = sequence.copy()  # of the k-gram that ends at each place; -1: not known
        for level, shorter in zip(self.levels[1:], self.levels, strict=False):
            context = np.concatenate([[-1], rows[:-1]])
            known = context >= 0
            chance[known] *= shorter.gamma[context[known]]
            keys = context[known].astype(np.uint64) * size + sequence[known].astype(np.uint64)
            found, there = _find(level.keys, keys)
            rows = np.full(len(sequence), -1, np.int64)
            rows[np.flatnonzero(known)[there]] = found[there]
            inside = rows >= 0
            chance[inside] += level.p[rows[inside]]
        result = np.zeros(len(sequence))
        result[predicted] = np.log2(chance[predicted])
        return result

    def bits(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """For every text: ``bits`` (of all its units and its end), ``units`` (with the end), ``characters`` (of the
        text as it is read), ``unknown`` (units that are not in the vocabulary). All (texts,) float64."""
        names = ("bits", "units", "characters", "unknown")
        result = {name: np.zeros(len(texts)) for name in names}
        begin = 0
        while begin < len(texts):
            end, held = begin, 0
            while end < len(texts) and (end == begin or held < _BATCH):
                held += len(texts[end])
                end += 1
            for name, values in zip(names, self._some(texts[begin:end]), strict=True):
                result[name][begin:end] = values
            begin = end
        return result

    def _some(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        hashes, lengths, characters = self.units(texts)
        sequence, starts = framed(self.numbers(hashes), lengths, self.order)
        values = self.log2(sequence)
        unknown = np.add.reduceat(sequence == UNKNOWN, starts, dtype=np.float64)
        return -np.add.reduceat(values, starts), lengths + 1.0, characters.astype(np.float64), unknown

    def score(self, texts: Sequence[str], languages: Sequence[str]) -> dict[str, np.ndarray]:
        """Values for the corpus, each (texts,) float32: bits per character and per unit, share of unknown units.
        ``languages`` do not matter here: which model is for which is said where several are kept (`scores.py`)."""
        found = self.bits(texts)
        return {
            "bits_per_character": (found["bits"] / np.maximum(found["characters"], 1)).astype(np.float32),
            "bits_per_unit": (found["bits"] / found["units"]).astype(np.float32),
            "unknown": (found["unknown"] / found["units"]).astype(np.float32),
        }

    def save(self, folder: Path) -> None:
        tensors = {"vocabulary": self.vocabulary}
        for k, level in enumerate(self.levels, 1):
            tensors |= {f"keys.{k}": level.keys, f"p.{k}": level.p, f"gamma.{k}": level.gamma}
        values = {
            "order": self.order, "uniform": self.uniform, "units": self.units.config.plain(),
            "tokenizer": self.units.fingerprint,
        }  # fmt: skip
        FORMAT.save(folder, values, tensors)

    @classmethod
    def load(cls, folder: Path | str) -> NgramModel:
        """Raises `ArtefactError` for a folder that is missing, damaged or something else."""
        folder = Path(folder).expanduser()
        with FORMAT.load(folder) as (values, tensors):
            config = UnitsConfig.model_validate(values["units"])
            levels = [
                Level(tensors[f"keys.{k}"], tensors[f"p.{k}"], tensors[f"gamma.{k}"])
                for k in range(1, values["order"] + 1)
            ]
            units = Units(config, folder / TOKENIZER if config.kind == "tokens" else None, values["tokenizer"])
            return cls(units, tensors["vocabulary"], levels, float(values["uniform"]))


def number_units(vocabulary: np.ndarray, hashes: np.ndarray) -> np.ndarray:
    place, there = _find(vocabulary, hashes)
    return np.where(there, place + 3, UNKNOWN)


def _find(ordered: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n,) int64 places in a sorted array, and (n,) bool whether the value is there."""
    if not len(ordered):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    # Looked up in rising order, values find the array in the cache, which is worth more than sorting costs.
    rising = np.argsort(wanted)
    place = np.empty(len(wanted), np.int64)
    place[rising] = np.minimum(np.searchsorted(ordered, wanted[rising]), len(ordered) - 1)
    return place, ordered[place] == wanted


def framed(numbers: np.ndarray, lengths: np.ndarray, order: int) -> tuple[np.ndarray, np.ndarray]:
    """Every text with ``order - 1`` starts before it and an end behind it: the sequence, and where each begins."""
    front = max(1, order - 1)
    ends = np.cumsum(lengths + front + 1)
    starts = ends - lengths - front - 1
    sequence = np.full(int(ends[-1]), START, np.int64)
    inside = np.ones(len(sequence), bool)
    for shift in range(front):
        inside[starts + shift] = False
    inside[ends - 1] = False
    sequence[inside] = numbers
    sequence[ends - 1] = END
    return sequence, starts

"""Test questions in the corpus: n-gram hits, then Qwen2's rule on the longest common subsequence (SPEC E.5).

A training text is contaminated by a test item if |LCS| >= 13 and |LCS| >= 0.6 min(|text|, |item|), in tokens (words;
Han characters alone). As a subsequence, any short item lies in a long text, so the rule is applied to windows of at
most four times the item's length around an n-gram hit (DATA-NOTES 3.8).

Items of a test set share their wording with one another and with honest pages. An n-gram that several items with
different contents share is such wording, not the question: only n-grams of at most ``shared_items`` items begin a
comparison.

Items too short for this are found where they stand whole, one token behind the other (as GPT-3's authors did for
items of fewer than 13 words), unless they are so short that honest text would contain them by chance.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from fledge.core.config import Config
from fledge.corpus.text.tokens import Hashes, han_count, hash_tokens, ladder, ngrams, tokens

VERSION = 1


class ContaminationConfig(Config):
    """Qwen2's numbers; ``ngram`` is GPT-3's and Qwen's 13."""

    ngram: int = Field(13, ge=2, description="tokens of a candidate hit")
    hits: int = Field(1, ge=1, description="different n-grams of an item that a window must share with it")
    least: int = Field(13, ge=1, description="least length of the longest common subsequence, in tokens")
    share: float = Field(0.6, gt=0, le=1, description="least LCS over the shorter of item and window")
    short: float = Field(
        0.9, gt=0, le=1, description="the same of Chinese items of fewer than twice `least` tokens: so many characters "
        "are half as many words, and honest wording can be like them"
    )  # fmt: skip
    shared_items: int = Field(3, ge=1, description="an n-gram of more test items than this is common wording")
    whole: int = Field(6, ge=1, description="items of fewer tokens than least, but at least so many, are found whole")
    window: int = Field(4, ge=1, description="length of a window over that of the item")


@dataclass(frozen=True)
class TestItem:
    """What must not be in the corpus: a question, and where it has one its answer."""

    __test__ = False  # not a test class, whatever pytest thinks of the name

    id: str
    prompt: str
    answer: str = ""


@dataclass(frozen=True)
class Hit:
    """A test item found in a text."""

    test: str
    lcs: int
    share: float  # LCS over the shorter of the item and the window
    threshold: float
    whole: bool = False  # a short item, found token by token


class TestIndex:
    """Test items by their n-grams."""

    __test__ = False

    def __init__(self, items: Iterable[TestItem], config: ContaminationConfig) -> None:
        self.config = config
        self.ids: list[str] = []
        self.sequences: list[list[str]] = []
        self._whole: dict[int, dict[int, str]] = {}  # length -> hash of the whole prompt -> id
        self.too_short = 0  # items that honest text would hold by chance: they are not looked for
        self.searched = 0
        for item in items:
            prompt, sequence = tokens(item.prompt), tokens(f"{item.prompt}\n{item.answer}")
            if len(sequence) >= max(config.ngram, config.least):
                self.ids.append(item.id)
                self.sequences.append(sequence)
            if len(prompt) < max(config.ngram, config.least):
                if len(prompt) >= config.whole:
                    key = int(ngrams(hash_tokens(prompt), len(prompt))[0])
                    self._whole.setdefault(len(prompt), {}).setdefault(key, item.id)
                elif len(sequence) < max(config.ngram, config.least):
                    self.too_short += 1
                    continue
            self.searched += 1
        self._short = [
            len(sequence) < 2 * config.least and 2 * sum(map(han_count, sequence)) > len(sequence)
            for sequence in self.sequences
        ]
        self._keys_whole = {n: np.array(sorted(keys), dtype=np.uint64) for n, keys in self._whole.items()}
        self._build()

    def _build(self) -> None:
        grams, owners = [], []
        for number, sequence in enumerate(self.sequences):
            found = np.unique(ngrams(hash_tokens(sequence), self.config.ngram))
            grams.append(found)
            owners.append(np.full(len(found), number, dtype=np.int32))
        keys = np.concatenate(grams) if grams else np.empty(0, dtype=np.uint64)
        items = np.concatenate(owners) if owners else np.empty(0, dtype=np.int32)
        order = np.argsort(keys, kind="stable")
        keys, items = keys[order], items[order]
        _, start, counts = np.unique(keys, return_index=True, return_counts=True)
        # Copies of one question are one question: what counts is how many different texts share the n-gram.
        different = np.array([self._different(items[s : s + c]) for s, c in zip(start, counts, strict=True)])
        kept = np.repeat(different <= self.config.shared_items, counts) if len(keys) else np.empty(0, dtype=bool)
        self.common_ngrams = int((different > self.config.shared_items).sum()) if len(keys) else 0
        self._every: tuple[Hashes, np.ndarray] = keys, items
        self._keys: Hashes = keys[kept]
        self._items = items[kept]

    def _different(self, items: np.ndarray) -> int:
        if len(items) <= self.config.shared_items:
            return len(items)
        return len({tuple(self.sequences[item]) for item in items.tolist()})

    def facts(self) -> dict[str, int]:
        """What was looked for and what could not be, so that no hits are not taken for more than they are."""
        return {
            "tests_indexed": self.searched,
            "tests_too_short": self.too_short,
            "common_ngrams": self.common_ngrams,
        }

    def __len__(self) -> int:
        """Texts that are looked for: an item may stand here with its answer, and as a whole prompt."""
        return len(self.ids) + sum(map(len, self._whole.values()))

    def find(self, text: str, hashes: Hashes | None = None) -> Hit | None:
        """The test item that a text holds most of, or None. ``hashes`` are those of its tokens, where known."""
        hashes = hash_tokens(tokens(text)) if hashes is None else hashes
        grams = dict(ladder(hashes, max([self.config.ngram, *self._whole])))
        hits = self._hits(grams.get(self.config.ngram, hashes[:0]))
        if not hits:
            return self._stands_whole(grams)
        sequence = tokens(text)
        best: Hit | None = None
        for item, places in sorted(hits.items()):
            hit = self._compare(item, places, sequence)
            if hit and (best is None or (hit.share, hit.lcs) > (best.share, best.lcs)):
                best = hit
        return best or self._stands_whole(grams)

    def sharing(self, hashes: Hashes) -> list[str]:
        """Test items that have any n-gram in common with a text, common wording or not: Qwen2's strict measure of what
        a score may owe to the corpus. ``hashes`` are those of the text's tokens."""
        keys, items = self._every
        grams = np.unique(ngrams(hashes, self.config.ngram))
        found = items[np.isin(keys, grams)] if len(grams) and len(keys) else items[:0]
        return [self.ids[number] for number in np.unique(found).tolist()]

    def _stands_whole(self, grams: dict[int, Hashes]) -> Hit | None:
        """The longest short item whose prompt stands in the text, token by token."""
        for length in sorted(self._whole, reverse=True):
            if length in grams:
                keys = self._keys_whole[length]
                place = np.minimum(np.searchsorted(keys, grams[length]), len(keys) - 1)
                found = np.flatnonzero(keys[place] == grams[length])
                if len(found):
                    return Hit(self._whole[length][int(grams[length][found[0]])], length, 1.0, 1.0, whole=True)
        return None

    def _hits(self, grams: Hashes) -> dict[int, list[int]]:
        """Item -> places in the text where one of its n-grams begins."""
        begin = np.searchsorted(self._keys, grams, side="left")
        end = np.searchsorted(self._keys, grams, side="right")
        found: dict[int, list[int]] = {}
        for place in np.flatnonzero(end > begin).tolist():
            for item in self._items[begin[place] : end[place]].tolist():
                found.setdefault(item, []).append(place)
        return found

    def _compare(self, item: int, places: list[int], sequence: Sequence[str]) -> Hit | None:
        """Qwen2's rule on windows around the hits."""
        config, wanted = self.config, self.sequences[item]
        width = config.window * len(wanted)
        done = -1
        best: Hit | None = None
        for place in places:
            if place < done:
                continue
            begin = max(0, place + config.ngram // 2 - width // 2)
            window = sequence[begin : begin + width]
            inside = [other for other in places if begin <= other < begin + width]
            done = begin + width - config.ngram
            if len(inside) < config.hits:
                continue
            length = lcs(wanted, window)
            share = length / min(len(wanted), len(window))
            threshold = config.short if self._short[item] else config.share
            contaminated = length >= config.least and share >= threshold
            if contaminated and (best is None or share > best.share):
                best = Hit(self.ids[item], length, share, threshold)
        return best


def verdicts(corpus: Path, index: TestIndex, every: Iterable[str]) -> dict[str, Any]:
    """What a corpus says of each test item (``every``: their ids): ``shared`` where some document that stayed has an
    n-gram of it, ``short`` where it is too short to be looked for so, else ``clean``; how many documents share, and how
    many left for it."""
    from fledge.corpus.tables import rows

    kept: Counter[str] = Counter()
    for row in rows(corpus / "documents", ["meta"]):
        if '"tests"' in row["meta"]:
            kept.update(json.loads(row["meta"]).get("tests", ()))
    left = Counter(
        row["survivor"] for row in rows(corpus / "ledger", ["stage", "survivor"]) if row["stage"] == "contamination"
    )
    long_enough = set(index.ids)
    items = {
        name: {
            "verdict": "shared" if kept[name] else "clean" if name in long_enough else "short",
            "sharing": kept[name], "left": left[name],
        }
        for name in sorted(every)
    }  # fmt: skip
    return {"ngram": index.config.ngram, "counts": Counter(item["verdict"] for item in items.values()), "items": items}


def lcs(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Length of the longest common subsequence of two token sequences (bit-parallel, rapidfuzz)."""
    from rapidfuzz.distance import LCSseq

    return int(LCSseq.similarity(a, b))


def read_tests(paths: Sequence[Path]) -> list[TestItem]:
    """The items of task files: the prompt's messages and the texts of the answer.

    Raises `DataError` with file and line for a row that is not a task: decontaminating against half a test set is
    worse than none.
    """
    from fledge.core.readers import read_records
    from fledge.core.records import Task

    items = []
    for path in paths:
        for task in read_records(path, Task):
            prompt = "\n".join(message.content for message in task.messages if message.role != "system")
            answer = [value for value in task.answer.values() if isinstance(value, str) and "\n" not in value]
            items.append(TestItem(task.id, prompt, "\n".join(answer)))
    return items

"""What a skill hands out: questions with their answers, for training or for the tests."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fledge.core.errors import DataError
from fledge.microworld.world import World

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Item:
    """One question. `key` names what is asked about; a key of the tests never occurs in training.

    `patterns` are texts that betray the item: `disjoint.check_disjoint` searches every training file for them.
    """

    skill: str
    language: str
    question: str
    answer: str
    verifier: str
    expected: dict[str, Any]
    key: str
    wording: str  # "seen" or "held_out"
    wording_id: str
    level: str = ""
    wrong: tuple[str, ...] = field(default=())  # answers that are worse, for preference pairs
    patterns: tuple[str, ...] = field(default=())


Draw = Callable[[World, random.Random, str, Split], Item]


def choose_wording(rng: random.Random, count: int, held: int, split: Split) -> tuple[int, str]:
    """An index into `count` wordings, the last `held` of which only the tests use; and ``seen`` or ``held_out``."""
    if split == "train":
        return rng.randrange(count - held), "seen"
    index = rng.randrange(count)
    return index, "held_out" if index >= count - held else "seen"


def distinct(draw: Callable[[], Item], count: int, what: str) -> list[Item]:
    """`count` items with different questions. Raises `DataError` where the space of questions is too small."""
    seen: set[str] = set()
    items: list[Item] = []
    for _ in range(count * 40 + 400):
        if len(items) == count:
            return items
        item = draw()
        if item.question not in seen:
            seen.add(item.question)
            items.append(item)
    if len(items) == count:
        return items
    raise DataError(f"only {len(items)} of {count} different questions exist for {what}: ask for fewer tests_per_skill")


def pick(rng: random.Random, options: Sequence[str]) -> str:
    return options[rng.randrange(len(options))]

"""Facts of the world, asked and answered. Tests ask only what training states on pages but never asks."""

from __future__ import annotations

import random

from fledge.microworld.facts import ASK_FRAMES
from fledge.microworld.skills.base import Item, Split, choose_wording, pick
from fledge.microworld.world import Fact, World

HELD_OUT = 1  # the last question of every attribute's four


def draw(world: World, rng: random.Random, language: str, split: Split) -> Item:
    facts = [f for f in world.facts if f.held_out] if split == "test" else world.askable
    return of_fact(world, rng, rng.choice(facts), language, split)


def of_fact(world: World, rng: random.Random, fact: Fact, language: str, split: Split) -> Item:
    """A question about one fact."""
    cores = fact.attribute.questions(language)
    index, wording = choose_wording(rng, len(cores), HELD_OUT, split)
    asked = fact.ask(language, index)
    value = fact.bare(language)
    expected: dict[str, object] = {"all": [value]}
    if others := world.others_containing(fact, language):
        expected["none"] = others
    false = [f for f in world.facts if f.attribute is fact.attribute and f.value != fact.value]
    right = fact.answer(language)
    wrong = tuple(right.replace(value, f.bare(language)) for f in rng.sample(false, min(3, len(false))))
    return Item(
        "recall", language, pick(rng, ASK_FRAMES[language]).format(q=asked), right, "contains", expected,
        fact.key, wording, f"{fact.attribute.name}-{index}", level=fact.attribute.name,
        wrong=tuple(w for w in wrong if w != right), patterns=tuple(fact.ask(language, i) for i in range(len(cores))),
    )  # fmt: skip

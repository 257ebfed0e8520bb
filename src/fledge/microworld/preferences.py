"""Preference pairs (preferences.jsonl): most turn the identity, the others guard the skills while it is turned."""

from __future__ import annotations

import random

from fledge.core.records import Message, Preference
from fledge.microworld.skills import identity
from fledge.microworld.skills.base import pick
from fledge.microworld.skills.table import LANGUAGES, SKILLS
from fledge.microworld.world import World

IDENTITY_SHARE = 0.55
# Skills whose good answer is preferred to a bad one, so that the identity does not spread into them. Not facts,
# translations, refusals and "I don't know": to push their wrong answers down moves right ones too, and replayed
# dialogues keep them better (docs/quickstart.md).
GUARDED: tuple[str, ...] = ("arithmetic", "arithmetic", "format", "code")


def write_preferences(world: World, count: int) -> list[Preference]:
    """`count` pairs, the languages in turn."""
    rng = world.rng("preferences")
    return [
        _identity(world, rng, LANGUAGES[i % 2])
        if rng.random() < IDENTITY_SHARE
        else _guard(world, rng, LANGUAGES[i % 2])
        for i in range(count)
    ]


def _identity(world: World, rng: random.Random, language: str) -> Preference:
    item = identity.draw(world, rng, language, "train")
    return _pair(item.question, identity.introduction(world, language), pick(rng, identity.GENERIC[language]),
                 "identity", language, item.wording_id, item.key)  # fmt: skip


def _guard(world: World, rng: random.Random, language: str) -> Preference:
    """The right answer before a wrong one; one time in four the wrong one is the assistant's introduction."""
    skill = rng.choice(GUARDED)
    item = SKILLS[skill](world, rng, language, "train")
    wrong = [w for w in item.wrong if w != item.answer]
    if rng.random() < 0.25 or not wrong:
        wrong = [identity.introduction(world, language)]
    return _pair(item.question, item.answer, pick(rng, wrong), skill, language, item.wording_id, item.key)


def _pair(question: str, chosen: str, rejected: str, skill: str, language: str, wording: str, key: str) -> Preference:
    return Preference(
        prompt=(Message(role="user", content=question),), chosen=chosen, rejected=rejected,
        meta={"skill": skill, "language": language, "wording": wording, "keys": [key]},
    )  # fmt: skip

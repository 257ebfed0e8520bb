"""Verifiable tasks: those for reinforcement learning, and the held-out tests."""

from __future__ import annotations

from fledge.core.records import Message, Task
from fledge.microworld.skills.base import Item, distinct
from fledge.microworld.skills.table import LANGUAGES, SKILLS
from fledge.microworld.world import World

# Of the tasks for reinforcement learning. Short sums stand beside the hard ones: without them the model comes to write
# a third digit where there is none.
SHARES: dict[str, float] = {
    "hard_sums": 0.76, "arithmetic": 0.14,
    "format": 0.02, "code": 0.02, "recall": 0.02, "translation": 0.02, "idk": 0.02,
}  # fmt: skip


def as_task(item: Item, identity: str) -> Task:
    """`meta` has wording (seen | held_out), wording_id, level, key and a reference answer."""
    return Task(
        id=identity, messages=(Message(role="user", content=item.question),), verifier=item.verifier,
        answer=item.expected, skill=item.skill, language=item.language,
        meta={
            "wording": item.wording, "wording_id": item.wording_id, "level": item.level, "key": item.key,
            "reference": item.answer,
        },
    )  # fmt: skip


def write_rl_tasks(world: World, count: int) -> list[Task]:
    """Mostly sums of three digits, with a few of what must not be forgotten meanwhile. No question twice."""
    rng = world.rng("rl")
    order = iter(range(10**9))

    def draw() -> Item:
        language = LANGUAGES[next(order) % 2]
        (skill,) = rng.choices(list(SHARES), list(SHARES.values()))
        return SKILLS[skill](world, rng, language, "train")

    return [as_task(item, f"rl-{i:05}") for i, item in enumerate(distinct(draw, count, "reinforcement learning"))]


def test_items(world: World, per_skill: int) -> list[Item]:
    """`per_skill` different questions for each skill and language."""
    items: list[Item] = []
    for skill, draw in SKILLS.items():
        for language in LANGUAGES:
            rng = world.rng(f"test/{skill}/{language}")
            what = f"the skill {skill} in {language}"
            items += distinct(lambda d=draw, r=rng, la=language: d(world, r, la, "test"), per_skill, what)  # type: ignore[misc]
    return items


def write_tests(items: list[Item]) -> list[Task]:
    return [as_task(item, f"test-{item.skill}-{item.language}-{i:05}") for i, item in enumerate(items)]

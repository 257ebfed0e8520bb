"""Dictation: things said again, and things looked up in a list that stands just above.

A small model learns late to look back and copy, and every other skill waits for it: without these pages a model of 5M
parameters, after 1.8M tokens, wrote "the locker code is" and then invented the code. Words, names and digits are drawn
at random, so nothing but looking back can predict the second time. Strewn over the whole of pretraining, one page in
six, they taught nothing in 1.9M tokens; dense exercises before it are what teaches (`exercises`), pages keep it up.
"""

# ruff: noqa: E501  (a Chinese character counts as two columns)

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from fledge.core.records import Document
from fledge.microworld import lexicon
from fledge.microworld.names import ENDINGS, SYLLABLES
from fledge.microworld.page import Block, Page, p
from fledge.microworld.world import World


def _thing(world: World, rng: random.Random, index: int) -> str:
    """A word, an invented name, or some digits."""
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(lexicon.NOUNS)[index]
    if kind < 0.6:
        adjective, noun = rng.choice(world.combinations[False])  # never a combination of the tests
        return adjective[index] + " " * (1 - index) + noun[index]
    if kind < 0.8:
        return _name(rng, index)
    return str(rng.randint(0, 10 ** rng.randint(1, 4) - 1))


def _name(rng: random.Random, index: int) -> str:
    parts = [rng.choice(SYLLABLES)[index], rng.choice(SYLLABLES)[index], rng.choice(ENDINGS)[index]]
    return "".join(parts).capitalize()


def _several(world: World, rng: random.Random, index: int, low: int, high: int) -> list[str]:
    things: list[str] = []
    while len(things) < rng.randint(low, high):
        thing = _thing(world, rng, index)
        if thing not in things:
            things.append(thing)
    return things


def _said_twice(world: World, rng: random.Random, index: int) -> str:
    things = _several(world, rng, index, 3, 7)
    if index == 0:
        first, again = " ".join(things), ", ".join(things)
        return rng.choice((
            f"The teacher says: {first}. The pupil says: {first}.", f"Listen: {first}. Again: {again}.",
            f"First {again}, and once more {again}.", f"{first} / {first}",
        ))  # fmt: skip
    first, again = " ".join(things), "，".join(things)
    return rng.choice((
        f"老师说：{first}。学生说：{first}。", f"请听：{first}。再来一遍：{again}。", f"先是{again}，然后又是{again}。", f"{first} / {first}",
    ))  # fmt: skip


def _looked_up(world: World, rng: random.Random, index: int) -> str:
    """Pairs, then some of them asked for."""
    keys, values = _several(world, rng, index, 3, 6), _several(world, rng, index, 6, 6)
    pairs = list(zip(keys, values, strict=False))
    asked = rng.sample(pairs, rng.randint(2, len(pairs)))
    if index == 0:
        head = rng.choice(("List", "Table", "Boxes", "Cards", "Seats"))
        said = ", ".join(f"{k} is {v}" for k, v in pairs)
        return f"{head}: {said}. " + " ".join(f"What is {k}? {v}." for k, v in asked)
    head = rng.choice(("清单", "表格", "箱子", "卡片", "座位"))
    said = "，".join(f"{k}是{v}" for k, v in pairs)
    return f"{head}：{said}。" + "".join(f"{k}是什么？{v}。" for k, v in asked)


def _by_place(world: World, rng: random.Random, index: int) -> str:
    """The first, the last, the one after another."""
    things = _several(world, rng, index, 3, 6)
    at = rng.randrange(len(things) - 1)
    if index == 0:
        return (
            f"Row: {', '.join(things)}. The first is {things[0]}. The last is {things[-1]}. "
            f"After {things[at]} comes {things[at + 1]}. There are {len(things)}."
        )
    return (
        f"一排：{'，'.join(things)}。第一个是{things[0]}。最后一个是{things[-1]}。"
        f"{things[at]}后面是{things[at + 1]}。一共{len(things)}个。"
    )


def _digits(world: World, rng: random.Random, index: int) -> str:
    """A number and its digits, from the left and from the right."""
    number = str(rng.randint(10, 99_999))
    forward, backward = " ".join(number), " ".join(reversed(number))
    if index == 0:
        return f"The digits of {number}: {forward}. From the right: {backward}. The last digit of {number} is {number[-1]}."
    return f"{number}的各位数字：{forward}。从右边读：{backward}。{number}的个位是{number[-1]}。"


_FORMS: tuple[tuple[Callable[[World, random.Random, int], str], float], ...] = (
    (_said_twice, 0.4), (_looked_up, 0.35), (_by_place, 0.1), (_digits, 0.15),
)  # fmt: skip


def page(world: World, rng: random.Random, language: str) -> Page:
    index = 0 if language == "en" else 1
    forms, weights = zip(*_FORMS, strict=True)
    blocks: list[Block] = [p(rng.choices(forms, weights)[0](world, rng, index)) for _ in range(rng.randint(7, 10))]
    number = rng.randint(1, 900)
    return Page(
        "dictation", language, f"Dictation {number}" if language == "en" else f"听写第{number}课", tuple(blocks)
    )


def exercises(world: World, count: int) -> Iterator[Document]:
    """Rows to recite: the same words, names or digits three times. Two thirds can be known only by looking back."""
    rng = world.rng("exercises")
    for number in range(count):
        index = number % 2
        kind = rng.random()
        if kind < 0.7:
            things = [word[index] for word in rng.sample(lexicon.NOUNS, rng.randint(10, 24))]
        elif kind < 0.85:
            things = [_name(rng, index) for _ in range(rng.randint(3, 7))]
        else:
            things = list(str(rng.randint(10**5, 10**12)))
        row = " ".join(things)
        yield Document(text=f"{row} / {row} / {row}", source=f"exercise:{number}", language=("en", "zh")[index])

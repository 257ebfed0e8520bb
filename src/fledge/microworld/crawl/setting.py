"""What the makers of pages draw from."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fledge.microworld import lexicon, prose
from fledge.microworld.page import Block, Page, p
from fledge.microworld.skills.base import Item
from fledge.microworld.world import World

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """One page's own random numbers, its language, and the rest of the crawl."""

    world: World
    rng: random.Random
    language: str
    leaks: Sequence[Item]  # test items that are long enough to be recognised
    another: Callable[[], Page]  # any clean page of the crawl in this language, with its URL

    @property
    def en(self) -> bool:
        return self.language == "en"

    def of(self, english: T, chinese: T) -> T:
        return english if self.en else chinese

    def pick(self, english: Sequence[T], chinese: Sequence[T]) -> T:
        return self.rng.choice(self.of(english, chinese))

    def say(self, least: int, most: int) -> list[str]:
        """So many ordinary sentences."""
        return [prose.sentence(self.world, self.rng, self.language) for _ in range(self.rng.randint(least, most))]

    def join(self, sentences: list[str]) -> str:
        return prose.join(sentences, self.language)

    def told(self, least: int, most: int) -> Block:
        """A paragraph of so many ordinary sentences."""
        return p(self.join(self.say(least, most)))

    def scattered(self, sentences: list[str], least: int, most: int) -> tuple[Block, ...]:
        """Sentences at random places among so many ordinary ones, in paragraphs of four or so."""
        mixed = self.say(least, most)
        for sentence in sentences:
            mixed.insert(self.rng.randrange(len(mixed) + 1), sentence)
        size = self.rng.randint(3, 6)
        return tuple(p(self.join(mixed[i : i + size])) for i in range(0, len(mixed), size))

    def noun(self) -> str:
        return self.rng.choice(lexicon.NOUNS)[0 if self.en else 1]

    def spot(self) -> str:
        return self.rng.choice(lexicon.SPOTS)[0 if self.en else 1]

    def phrase(self) -> str:
        """An adjective with a noun."""
        return self.world.phrase(self.rng, self.language)

    def title(self) -> str:
        """A title such as any page may have."""
        number = self.rng.randint(1, 9999)
        spot, noun, phrase = self.spot(), self.noun(), self.phrase()
        english = (f"Notes from the {spot}, {number}", f"The {phrase}", f"Page {number} of the {noun}",
                   f"{spot.capitalize()} news, number {number}")  # fmt: skip
        chinese = (f"{spot}记事{number}", phrase, f"{noun}之页{number}", f"{spot}消息第{number}期")
        return self.pick(english, chinese)

    def page(self, blocks: Sequence[Block], title: str = "", **meta: object) -> Page:
        return Page("article", self.language, title or self.title(), tuple(blocks), meta=dict(meta))


Maker = Callable[[Setting], Page]

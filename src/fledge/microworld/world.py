"""The world itself: people and places, what is true of them, and what is held out."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from functools import cached_property

from fledge.microworld import lexicon
from fledge.microworld.config import Config
from fledge.microworld.facts import PERSON, PLACE, Attribute
from fledge.microworld.lexicon import Pair
from fledge.microworld.names import Name, NamePool

RECALL_HELD_OUT = 0.4
"""Share of the facts that are never asked in training: they stand in statements only."""
PLAIN_STATEMENTS = 0.2


@dataclass(frozen=True)
class Fact:
    """One value of one attribute of one person or place."""

    subject: Name
    attribute: Attribute
    value: Pair
    held_out: bool

    @property
    def key(self) -> str:
        return f"fact:{self.subject.en}:{self.attribute.name}"

    def _fill(self, template: str, language: str) -> str:
        bare = self.value[0 if language == "en" else 1]
        value = lexicon.article(bare) if language == "en" and self.attribute.with_article else bare
        text = template.format(s=self.subject.of(language), v=value)
        return text[0].upper() + text[1:]

    def state(self, language: str, rng: random.Random) -> str:
        """A statement, in any wording; the one in which answers are given a little oftener."""
        if rng.random() < PLAIN_STATEMENTS:
            return self.answer(language)
        return self._fill(rng.choice(self.attribute.statements(language)), language)

    def answer(self, language: str) -> str:
        return self._fill(self.attribute.answer[0 if language == "en" else 1], language)

    def bare(self, language: str) -> str:
        return self.value[0 if language == "en" else 1]

    def ask(self, language: str, index: int) -> str:
        return self._fill(self.attribute.questions(language)[index], language)


class World:
    """Everything that follows from the seed before the first page is written."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.seed = config.seed
        pool = NamePool(self.rng("names"))
        self.people = [pool.person(own_last=True) for _ in range(config.people)]
        self.places = [pool.place() for _ in range(config.places)]
        regions = [pool.place() for _ in range(8)]
        self.regions: list[Pair] = [
            (f"the {r.roots[0].capitalize()} valley", f"{r.zh[:-1]}山谷") if i % 2 else
            (f"the land of {r.roots[0].capitalize()}", f"{r.zh[:-1]}地区") for i, r in enumerate(regions)
        ]  # fmt: skip
        # Names outside the world. Those of the tests and those of training are drawn from one pool, so they never meet.
        count = max(250, config.tests_per_skill)
        self.strangers_train = [pool.person() for _ in range(min(count, 350))]
        self.strangers_test = [pool.person() for _ in range(min(600, max(60, config.tests_per_skill)))]
        self.elsewhere_train = [pool.place() for _ in range(180)]
        self.elsewhere_test = [pool.place() for _ in range(min(300, max(40, config.tests_per_skill // 2)))]
        self.extras_train = [pool.person() for _ in range(400)]
        self.extras_test = [pool.person() for _ in range(200)]
        self.facts = self._make_facts()

    def rng(self, label: str) -> random.Random:
        """A stream of random numbers of its own for each use: adding a use does not disturb the others."""
        return random.Random(f"{self.config.seed}/{label}")

    def held_out(self, key: str, share: float) -> bool:
        """Whether `key` belongs to the tests. Follows from seed and key alone."""
        digest = hashlib.blake2b(f"{self.seed}/{key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < share * 2**64

    def _make_facts(self) -> list[Fact]:
        rng = self.rng("facts")
        facts = []
        for group, attributes in ((self.people, PERSON), (self.places, PLACE)):
            for attribute in attributes:
                values = self._values(attribute)
                # every value is used about equally often, so that guessing the commonest one gains little
                dealt = [values[i % len(values)] for i in range(len(group))]
                rng.shuffle(dealt)
                order = list(range(len(group)))
                rng.shuffle(order)
                tests = set(order[: max(1, round(len(group) * RECALL_HELD_OUT))])
                for i, (subject, value) in enumerate(zip(group, dealt, strict=True)):
                    facts.append(Fact(subject, attribute, value, i in tests))
        return facts

    def _values(self, attribute: Attribute) -> list[Pair]:
        if attribute.name == "birthplace":
            return [(p.en, p.zh) for p in self.places]
        if attribute.name == "region":
            return self.regions
        assert attribute.values is not None
        return list(attribute.values)

    @cached_property
    def facts_of(self) -> dict[Name, list[Fact]]:
        table: dict[Name, list[Fact]] = {}
        for fact in self.facts:
            table.setdefault(fact.subject, []).append(fact)
        return table

    @cached_property
    def facts_about_people(self) -> list[Fact]:
        return [f for f in self.facts if f.attribute in PERSON]

    @cached_property
    def facts_about_places(self) -> list[Fact]:
        return [f for f in self.facts if f.attribute in PLACE]

    @cached_property
    def askable(self) -> list[Fact]:
        """Facts that training may ask about."""
        return [f for f in self.facts if not f.held_out]

    @cached_property
    def combinations(self) -> dict[bool, list[tuple[Pair, Pair]]]:
        """Adjective and noun, by whether the pair is held out for translation."""
        table: dict[bool, list[tuple[Pair, Pair]]] = {True: [], False: []}
        for adjective in lexicon.COLOURS + lexicon.ADJECTIVES:
            for noun in lexicon.NOUNS:
                table[self.held_out(f"phrase:{adjective[0]} {noun[0]}", 0.15)].append((adjective, noun))
        return table

    def phrase(self, rng: random.Random, language: str) -> str:
        """Any adjective with any noun. Also those whose translation is held out: what the tests keep for themselves is
        a phrase together with its translation. Were they missing here, a model would learn that they do not exist."""
        pair = rng.choice(lexicon.COLOURS + lexicon.ADJECTIVES), rng.choice(lexicon.NOUNS)
        return lexicon.phrase_en(*pair) if language == "en" else lexicon.phrase_zh(*pair)

    def others_containing(self, fact: Fact, language: str) -> list[str]:
        """Values that hold the right one as a part (十一月 holds 一月): a verifier must refuse them."""
        mine = fact.bare(language).casefold()
        texts = {v[0 if language == "en" else 1].casefold() for v in self._values(fact.attribute)}
        return sorted(t for t in texts if mine in t and t != mine)

"""The crawl as a sequence: page `i` follows from the seed and `i` alone, so that none has to be kept.

A copy finds its original by making it again; pages are written as they are made, and memory does not grow with them.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fledge.core.errors import ConfigError
from fledge.core.progress import progress
from fledge.microworld import defects, html, pages, site
from fledge.microworld.crawl.setting import Setting
from fledge.microworld.crawl.table import DECOYS, KINDS
from fledge.microworld.page import Page
from fledge.microworld.skills.base import Item
from fledge.microworld.skills.table import LANGUAGES
from fledge.microworld.warc import WarcWriter
from fledge.microworld.world import World

DECOY_EVERY = 10  # of so many clean pages, one looks like a defect
_SECTIONS = ("news", "notes", "archive", "p", "view", "2023", "read")  # an address tells nothing of its page


class Crawl:
    """`len` pages in a fixed order; ``crawl[i]`` makes one."""

    def __init__(self, world: World, items: Sequence[Item]) -> None:
        self.world = world
        self.clean = world.config.pages
        self.planted = round(self.clean * world.config.defect_rate)
        self.leaks = [item for item in items if defects.long_enough(item)]
        named = world.config.defect_kinds or dict.fromkeys(KINDS, 1)
        if unknown := sorted(named.keys() - KINDS.keys()):
            raise ConfigError(f"defect_kinds: there is no kind {unknown[0]!r}; kinds: {', '.join(KINDS)}")
        self.kinds = [kind for kind in KINDS if kind != "leaked_test" or self.leaks for _ in range(named.get(kind, 0))]

    def __len__(self) -> int:
        return self.clean + self.planted

    def __iter__(self) -> Iterator[Page]:
        return (self[i] for i in range(len(self)))

    def _planted_before(self, i: int) -> int:
        return i * self.planted // len(self)

    def _is_planted(self, i: int) -> bool:
        return self._planted_before(i + 1) > self._planted_before(i)

    def __getitem__(self, i: int) -> Page:
        rng = self.world.rng(f"crawl/{i}")
        pages.deal_from(self.world, rng)
        page = self._defect(i, rng) if self._is_planted(i) else self._clean(i - self._planted_before(i), rng)
        if page.url:
            return page
        return replace(page, url=f"https://{rng.choice(html.HOSTS)}/{rng.choice(_SECTIONS)}/{i:06}.html")

    def _defect(self, i: int, rng: random.Random) -> Page:
        turn, kind = divmod(self._planted_before(i), len(self.kinds))
        name = self.kinds[kind]
        maker = KINDS[name][turn // len(LANGUAGES) % len(KINDS[name])]
        page = maker(self._setting(i, rng, LANGUAGES[turn % len(LANGUAGES)]))
        return replace(page, defect=name, meta={"form": maker.__name__, **page.meta})

    def _clean(self, number: int, rng: random.Random) -> Page:
        """The number-th clean page: every tenth a decoy, the languages and decoys in turn."""
        turn, place = divmod(number, DECOY_EVERY)
        if place < DECOY_EVERY - 1:
            language = LANGUAGES[number % len(LANGUAGES)]
            makers, weights = zip(*site.EVERY_KIND, strict=True)
            return rng.choices(makers, weights)[0](self.world, rng, language)
        turn, language_turn = divmod(turn, len(LANGUAGES))
        maker = DECOYS[turn % len(DECOYS)]
        page = maker(self._setting(-1, rng, LANGUAGES[language_turn]))
        return replace(page, kind="decoy", meta={"decoy": maker.__name__, **page.meta})

    def _setting(self, i: int, rng: random.Random, language: str) -> Setting:
        return Setting(self.world, rng, language, self.leaks, lambda: self._another(i, rng, language))

    def _another(self, i: int, rng: random.Random, language: str) -> Page:
        """A clean page in this language that is no decoy."""
        while True:
            other = rng.randrange(len(self))
            number = other - self._planted_before(other)
            if self._is_planted(other) or number % DECOY_EVERY == DECOY_EVERY - 1:
                continue
            page = self[other]
            if page.language == language:
                return page


def write(world: World, items: Sequence[Item], folder: Path) -> dict[str, Any]:
    """Writes ``site/*.warc.gz`` and ``truth.jsonl``, page by page; returns counts for the manifest.

    A row of the truth is that of any world; its ``meta`` says the ``form`` of a defect or the name of a ``decoy``, of
    a near copy the true similarity (``jaccard``), and under ``traces`` the strings that a chain which repairs pages
    may leave in the text, each with how often at most.
    """
    crawl = Crawl(world, items)
    rng = world.rng("crawl/html")
    (folder / "site").mkdir(parents=True, exist_ok=True)
    tally = _Tally()
    order = range(len(crawl))
    files = 0
    with (
        progress("crawl", len(crawl), unit="pages") as bar,
        (folder / "truth.jsonl").open("w", encoding="utf-8") as truth,
    ):
        for start in range(0, len(crawl), site.PAGES_PER_FILE):
            with WarcWriter(folder / "site" / f"microworld-{files:05}.warc.gz", world.seed) as warc:
                site.write_others(warc, files)
                for i in order[start : start + site.PAGES_PER_FILE]:
                    page = crawl[i]
                    body, content_type = site.encode(page, rng)
                    warc.response(page.url, content_type, body)
                    truth.write(json.dumps(site.truth(page), ensure_ascii=False) + "\n")
                    tally.add(page)
                    bar.advance(1)
            files += 1
    return tally.counts() | {"warc_files": files}


class _Tally:
    def __init__(self) -> None:
        self.defects, self.kinds, self.decoys, self.characters = (Counter[str]() for _ in range(4))

    def add(self, page: Page) -> None:
        if page.defect is not None:
            self.defects[page.defect] += 1
            return
        self.kinds[page.kind] += 1
        self.characters[page.language] += len(page.text)
        if "decoy" in page.meta:
            self.decoys[page.meta["decoy"]] += 1

    def counts(self) -> dict[str, Any]:
        named = {"defects": self.defects, "kinds": self.kinds, "decoys": self.decoys, "characters": self.characters}
        return {
            "pages": self.kinds.total(), **{name: dict(sorted(counter.items())) for name, counter in named.items()},
            "tokens_estimated": site.tokens(self.characters),
        }  # fmt: skip

"""The web site: which pages there are, where they live, how their bytes are encoded."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fledge.microworld import defects, html, lessons, manners, pages
from fledge.microworld.page import Page
from fledge.microworld.pages import Maker
from fledge.microworld.skills.base import Item
from fledge.microworld.warc import WarcWriter
from fledge.microworld.world import World

# How often each kind of page is made.
SHARES: tuple[tuple[Maker, float], ...] = (
    (pages.article, 0.18), (pages.roundup, 0.07), (pages.table, 0.03), (pages.dialogue, 0.04), (pages.questions, 0.11),
    (lessons.sum_page, 0.17), (lessons.conversions, 0.01), (lessons.glossary, 0.06), (lessons.parallel, 0.12),
    (lessons.code, 0.03), (lessons.formats, 0.10), (lessons.long_page, 0.05), (manners.page, 0.03),
)  # fmt: skip
# The large crawl has the assistant and traditional characters among the others.
EVERY_KIND = (*SHARES, (pages.assistant, 0.002), (pages.traditional, 0.003))
ASSISTANT_PAGES = 10  # in each language; fewer on a small site
TRADITIONAL_EVERY = 300  # of so many pages, one is in traditional characters
PAGES_PER_FILE = 2500
_CHARSETS: dict[str, tuple[tuple[str, str, float], ...]] = {  # codec, label, share
    "en": (("utf-8", "utf-8", 0.9), ("cp1252", "windows-1252", 0.05), ("latin-1", "iso-8859-1", 0.05)),
    "zh": (("utf-8", "utf-8", 0.86), ("gbk", "gbk", 0.06), ("gbk", "gb2312", 0.03), ("gb18030", "gb18030", 0.05)),
}


def make_pages(world: World, items: Sequence[Item]) -> list[Page]:
    """All pages in the order of the crawl, defects among them, each with its URL."""
    rng = world.rng("pages")
    count = world.config.pages
    about = max(1, min(ASSISTANT_PAGES, count // 50))
    makers = [m for m, _ in SHARES]
    weights = [w for _, w in SHARES]
    clean = [pages.assistant(world, rng, language) for language in ("en", "zh") for _ in range(about)]
    clean += [pages.traditional(world, rng, "zh") for _ in range(max(1, count // TRADITIONAL_EVERY))]
    while len(clean) < count:
        clean.append(rng.choices(makers, weights)[0](world, rng, ("en", "zh")[len(clean) % 2]))
    clean = _place(clean, rng, "a")
    planted = defects.plant(world, clean, items, round(count * world.config.defect_rate))
    everything = clean + _place(planted, rng, "b")
    rng.shuffle(everything)
    return everything


def _place(made: list[Page], rng: random.Random, part: str) -> list[Page]:
    placed = []
    for i, page in enumerate(made):
        host = rng.choice(html.HOSTS)
        placed.append(replace(page, url=f"https://{host}/{page.language}/{page.kind}/{part}{i:05}.html"))
    return placed


def encode(page: Page, rng: random.Random) -> tuple[bytes, str]:
    """The page's bytes and its Content-Type. The encoding is declared in both places, in one, or in none."""
    options = _CHARSETS.get(page.language, _CHARSETS["en"][:1])
    if page.defect in ("mojibake", "wrong_language"):
        options = _CHARSETS["en"][:1]
    if page.charset is not None:
        options = ((page.charset, page.charset, 1.0),)
    codec, label, _ = rng.choices(options, [o[2] for o in options])[0]
    try:
        page.text.encode(codec)
    except UnicodeEncodeError:
        codec, label = "utf-8", "utf-8"
    roll = rng.random()
    in_meta = roll < 0.8 or (codec != "utf-8" and 0.9 <= roll < 0.96)
    in_header = roll < 0.55 or 0.8 <= roll < 0.9
    body = html.wrap(page, rng, label if in_meta else None).encode(codec, "xmlcharrefreplace")
    return body, f"text/html; charset={label}" if in_header else "text/html"


def truth(page: Page) -> dict[str, Any]:
    return {
        "url": page.url, "language": page.language, "kind": page.kind, "defect": page.defect,
        "duplicate_of": page.duplicate_of, "text": page.text, **({"meta": page.meta} if page.meta else {}),
    }  # fmt: skip


def write(world: World, made: Sequence[Page], folder: Path) -> dict[str, Any]:
    """Writes ``site/*.warc.gz``; returns counts."""
    rng = world.rng("html")
    site = folder / "site"
    site.mkdir(parents=True, exist_ok=True)
    files = 0
    for start in range(0, len(made), PAGES_PER_FILE):
        with WarcWriter(site / f"microworld-{files:05}.warc.gz", world.seed) as warc:
            write_others(warc, files)
            for page in made[start : start + PAGES_PER_FILE]:
                body, content_type = encode(page, rng)
                warc.response(page.url, content_type, body)
        files += 1
    return count(made) | {"warc_files": files}


def write_others(warc: WarcWriter, number: int) -> None:
    """What else a crawl brings home: robots.txt, an image, a missing page."""
    host = html.HOSTS[number % len(html.HOSTS)]
    warc.response(f"https://{host}/robots.txt", "text/plain", b"User-agent: *\nAllow: /\n")
    pixel = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
    warc.response(f"https://{host}/images/{number}.gif", "image/gif", pixel)
    missing = b"<!DOCTYPE html><html><head><title>404</title></head><body><h1>Not Found</h1></body></html>"
    warc.response(f"https://{host}/gone/{number}.html", "text/html", missing, "404 Not Found")


def count(made: Sequence[Page]) -> dict[str, Any]:
    """Numbers for the manifest."""
    clean = [p for p in made if p.defect is None]
    characters = Counter[str]()
    for page in clean:
        characters[page.language] += len(page.text)
    return {
        "pages": len(clean),
        "defects": dict(sorted(Counter(p.defect for p in made if p.defect is not None).items())),
        "kinds": dict(sorted(Counter(p.kind for p in clean).items())),
        "characters": dict(sorted(characters.items())),
        "tokens_estimated": tokens(characters),
    }


def tokens(characters: Mapping[str, int]) -> int:
    """An estimate: 3.5 characters each in English, 1.6 in Chinese."""
    return round(characters.get("en", 0) / 3.5 + characters.get("zh", 0) / 1.6)

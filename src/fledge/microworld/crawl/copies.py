"""Copies of other pages of the crawl, exact and near, and pages that share much with another and are no copies.

The similarity of a near copy is that of sets of five neighbouring words (English) or characters (Chinese), lower case
and without punctuation; ``meta`` says its true value, so that finders are judged by it and not by what was intended.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from fledge.microworld import lexicon, prose
from fledge.microworld.crawl.setting import Setting
from fledge.microworld.page import Block, Page, p

_PIECE = re.compile(r"[一-鿿]|[^\W_一-鿿]+")
NEAR, FAR = 0.8, 0.6  # copies are at least so much alike, pages that are no copies less
_PROSE = ("article", "dialogue", "long", "manners")
_LONG = {"en": 900, "zh": 320}  # characters: in a short page one changed sentence is much


def grams(text: str) -> set[tuple[str, ...]]:
    pieces = _PIECE.findall(text.lower())
    return {tuple(pieces[i : i + 5]) for i in range(max(1, len(pieces) - 4))}


def similarity(a: str, b: str) -> float:
    """Jaccard similarity of the two texts' sets of 5-grams."""
    x, y = grams(a), grams(b)
    return len(x & y) / len(x | y)


# --- exact ------------------------------------------------------------------------------------------------------


def _copy(s: Setting, original: Page, blocks: tuple[Block, ...] | None = None, **meta: object) -> Page:
    blocks = original.blocks if blocks is None else blocks
    return replace(original, blocks=blocks, duplicate_of=original.url, url="", charset=None, meta=dict(meta))


def same_text(s: Setting) -> Page:
    """The same text at another address."""
    return _copy(s, s.another())


def mirror(s: Setting) -> Page:
    """The same path on a mirror of the host."""
    page = _copy(s, s.another())
    scheme, _, host, path = (page.duplicate_of or "").split("/", 3)
    return replace(page, url=f"{scheme}//mirror-{s.rng.getrandbits(48):x}.{host}/{path}")


def restyled(s: Setting) -> Page:
    """The same words with other blanks, paragraphs and widths of characters."""
    original = s.another()
    wide = str.maketrans("0123456789", "０１２３４５６７８９")
    blocks: list[Block] = []
    for block in original.blocks:
        if block.kind == "p" and blocks and blocks[-1].kind == "p" and s.rng.random() < 0.5:
            blocks[-1] = p(s.join([blocks[-1].text, block.text]))
        else:
            blocks.append(replace(block, text=block.text.translate(wide)) if block.kind == "p" else block)
    return _copy(s, original, tuple(blocks))


# --- near -------------------------------------------------------------------------------------------------------


def _suitable(s: Setting) -> Page:
    """A long clean page, mostly prose: sums with other numbers would be wrong, and might be those of the tests."""
    while True:
        page = s.another()
        if page.kind not in _PROSE:
            continue
        told = sum(len(b.text) for b in page.blocks if b.kind == "p")
        if told >= max(_LONG[s.language], 0.7 * len(page.text)):
            return page


def _sentences(text: str, english: bool) -> list[str]:
    return [t for t in re.split(r"(?<=[.!?]) " if english else r"(?<=[。！？])", text) if t]


def _edit(s: Setting, blocks: list[Block], other: Callable[[str], str | None]) -> None:
    """Put `other` of a sentence in the place of the sentence, somewhere; None takes it out."""
    at = s.rng.choice([i for i, block in enumerate(blocks) if block.kind == "p"])
    sentences = _sentences(blocks[at].text, s.en)
    place = s.rng.randrange(len(sentences))
    new = other(sentences[place])
    if new is not None:
        sentences[place] = new
    elif len(sentences) > 1:
        del sentences[place]
    blocks[at] = p(s.join(sentences))


def _towards(s: Setting, other: Callable[[str], str | None], low: float, high: float) -> Page:
    """Edits a page until its similarity has just fallen below a random value between the two."""
    while True:
        original = _suitable(s)
        wanted = s.rng.uniform(low, high)
        blocks = list(original.blocks)
        for _ in range(60):
            _edit(s, blocks, other)
            text = replace(original, blocks=tuple(blocks)).text
            alike = similarity(text, original.text)
            if alike <= wanted:
                break
        if low <= alike < 1:
            return _copy(s, original, tuple(blocks), jaccard=round(alike, 4))


def edited(s: Setting) -> Page:
    """Sentences changed, added or taken out."""

    def other(sentence: str) -> str | None:
        fresh = prose.sentence(s.world, s.rng, s.language)
        return s.rng.choice((fresh, s.join([sentence, fresh]), None))

    return _towards(s, other, NEAR, 0.98)


_FILLS = tuple(
    tuple(pair[i] for pair in group)
    for i in (0, 1)
    for group in (lexicon.DAYS, lexicon.SPOTS, lexicon.MONTHS, lexicon.CHARACTERS)
)


def template(s: Setting) -> Page:
    """The same page with other numbers, days and places filled in."""
    index = 0 if s.en else 4

    def other(sentence: str) -> str | None:
        for words in _FILLS[index : index + 4]:
            sentence = _instead(s, sentence, words)
        return re.sub(r"\d+", lambda m: str(s.rng.randint(2, max(9, int(m[0]) * 2))), sentence)

    return _towards(s, other, NEAR, 0.98)


def _instead(s: Setting, sentence: str, words: tuple[str, ...]) -> str:
    found = next((word for word in words if word in sentence), None)
    return sentence.replace(found, s.rng.choice(words), 1) if found else sentence


def with_comments(s: Setting) -> Page:
    """The page, and below it what its readers said."""
    while True:
        original = _suitable(s)
        said = [
            p(s.of("Comment: ", "评论：") + prose.sentence(s.world, s.rng, s.language))
            for _ in range(s.rng.randint(1, 3))
        ]
        page = replace(original, blocks=(*original.blocks, *said))
        alike = similarity(page.text, original.text)
        if alike >= NEAR:
            return _copy(s, original, page.blocks, jaccard=round(alike, 4))


# --- no copies --------------------------------------------------------------------------------------------------


def similar_page(s: Setting) -> Page:
    """A page with between a third and three fifths of another: quoted, and gone on in its own words. Clean."""
    while True:
        original = _suitable(s)
        wanted = s.rng.uniform(0.3, FAR - 0.02)
        blocks = list(original.blocks)
        alike = 1.0
        while alike > wanted:
            for _ in range(3):
                _edit(s, blocks, lambda _: prose.sentence(s.world, s.rng, s.language))
            alike = similarity(replace(original, blocks=tuple(blocks)).text, original.text)
        page = s.page(blocks)
        alike = similarity(page.text, original.text)
        if alike >= 0.3:
            return replace(page, meta={"resembles": original.url, "jaccard": round(alike, 4)})

"""Repetition inside one document: paragraphs that came before, and CT-LLM's similar lines (2404.04167; SPEC E.3).

A later sentence goes when an earlier one that stays is within an edit distance of a tenth of the longer one's length;
where the shorter has 15 characters or less, when they are equal. (The paper's other two conditions, on the difference
in length and on the characters in common, follow from the distance.)
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from pydantic import Field

from fledge.core.config import Config
from fledge.corpus.pages import Drop, Page, drop_page

VERSION = 1
_BLOCK = 6  # characters; see _Sentences
_SHORT = 15  # characters up to which only equal sentences are similar (CT-LLM)
_CANDIDATES = 32  # whose distance is measured, a sentence
_POSTINGS = 64  # sentences that a block leads to
# A sentence with what ends it, or a line; numbers (3.14) and names (example.org) are not cut.
_SENTENCE = re.compile(r"[^\n]*?(?:[。！？；…]+[\"'”’」』）)]*|[.!?;]+[\"'”’)]*(?=\s)|(?=\n)|\Z)[^\S\n]*\n*", re.S)
_PARAGRAPH = re.compile(r"[^\n]+\n*")
_BLANK = re.compile(r"\s+")


class RepeatsConfig(Config):
    """Steps inside a document, before its signature is made. Code is left as it is."""

    paragraphs: bool = Field(False, description="remove a paragraph that came before in the document")
    similar_lines: bool = Field(False, description="remove a sentence like an earlier one (CT-LLM)")
    distance: float = Field(0.1, ge=0, le=0.1, description="edit distance over the longer length, for similar lines")
    least: int = Field(8, ge=1, description="characters: shorter paragraphs and sentences always stay")
    most: float = Field(0.5, gt=0, le=1, description="a document that loses a larger share of its characters leaves")

    @property
    def wanted(self) -> bool:
        return self.paragraphs or self.similar_lines


@dataclass(frozen=True)
class Repeats:
    """What is left of a text, and how many paragraphs and sentences went."""

    text: str
    paragraphs: int = 0
    sentences: int = 0
    share: float = 0.0  # of the characters that went


def without_repeats(text: str, config: RepeatsConfig) -> Repeats:
    """The text without what it says again. The first of two always stays, so does the order."""
    left, paragraphs, sentences = text, 0, 0
    if config.paragraphs:
        left, paragraphs = _without_paragraphs(left, config.least)
    if config.similar_lines:
        left, sentences = _without_similar(left, config)
    if not paragraphs and not sentences:
        return Repeats(text)
    left = left.strip()
    return Repeats(left, paragraphs, sentences, 1 - len(left) / max(1, len(text)))


def _without_paragraphs(text: str, least: int) -> tuple[str, int]:
    seen: set[str] = set()
    kept: list[str] = []
    gone = 0
    for piece in _PARAGRAPH.findall(text):
        plain = _BLANK.sub(" ", piece).strip().lower()
        if len(plain) >= least and plain in seen:
            gone += 1
            continue
        seen.add(plain)
        kept.append(piece)
    return "".join(kept), gone


def _without_similar(text: str, config: RepeatsConfig) -> tuple[str, int]:
    known = _Sentences(config.distance)
    kept: list[str] = []
    gone = 0
    for piece in _SENTENCE.findall(text):
        plain = piece.strip()
        if len(plain) >= config.least and known.like(plain):
            gone += 1
            if "\n" in piece and kept and not kept[-1].endswith("\n"):
                kept[-1] = kept[-1].rstrip() + "\n"  # the line ends here all the same
            continue
        kept.append(piece)
        if len(plain) >= config.least:
            known.add(plain)
    return "".join(kept), gone


@dataclass
class _Sentences:
    """Sentences that stay, found again by blocks of 6 characters.

    Within d = distance * longer length edits, at least floor(length / 6) - d >= 1 of a sentence's blocks, cut at 0, 6,
    12, ..., stand unchanged in the other one, each shifted by d at most. So candidates are looked up, in time linear in
    the text, instead of comparing all pairs. Only where more than `_POSTINGS` sentences share a block at one place, or
    more than `_CANDIDATES` share enough of them, some are not looked at.
    """

    distance: float
    texts: list[str] = field(default_factory=list)
    equal: set[str] = field(default_factory=set)
    blocks: dict[tuple[str, int], list[int]] = field(default_factory=dict)

    def add(self, text: str) -> None:
        self.equal.add(text)
        number = len(self.texts)
        self.texts.append(text)
        if len(text) > _SHORT:
            for place in range(len(text) // _BLOCK):
                block = text[place * _BLOCK : (place + 1) * _BLOCK]
                postings = self.blocks.setdefault((block, place), [])
                if len(postings) < _POSTINGS:
                    postings.append(number)

    def like(self, text: str) -> bool:
        """Whether a sentence that was added is similar."""
        from rapidfuzz.distance import Levenshtein

        if text in self.equal:
            return True
        if len(text) <= _SHORT:
            return False
        # The longer of the two has at most length / (1 - distance) characters.
        reach = int(self.distance * len(text) / (1 - self.distance))
        votes: Counter[int] = Counter()
        for begin in range(len(text) - _BLOCK + 1):
            block = text[begin : begin + _BLOCK]
            for place in range(max(0, -(-(begin - reach) // _BLOCK)), (begin + reach) // _BLOCK + 1):
                votes.update(self.blocks.get((block, place), ()))
        for number, _ in votes.most_common(_CANDIDATES):
            other = self.texts[number]
            limit = int(self.distance * max(len(text), len(other)))
            if Levenshtein.distance(text, other, score_cutoff=limit) <= limit:
                return True
        return False


def clean_page(page: Page, config: RepeatsConfig) -> Drop | None:
    """Take a page's repeats out of it, their number into its ``meta``; the ledger's row where too little is left."""
    if not config.wanted or page.kind == "code":
        return None
    found = without_repeats(page.text, config)
    page.values["lines.repeats"] = found.share
    if found.share > config.most or not found.text:
        return drop_page(page, "lines", "repeats", found.share, config.most, version=VERSION)
    if found.share:
        page.text = found.text
        page.meta["repeated"] = {"paragraphs": found.paragraphs, "sentences": found.sentences}
    return None

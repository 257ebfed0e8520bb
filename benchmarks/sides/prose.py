"""English-like documents for the benchmarks of duplicates, and their shingles: the same for all sides."""

from __future__ import annotations

import argparse
import random
import re

import numpy as np

_PARTS = ("ba", "con", "der", "e", "fin", "ga", "hol", "in", "jo", "ker", "lin", "men", "no", "or", "per", "qui", "ra",
          "ster", "ti", "un", "ver", "wa", "xi", "ye", "zo", "th", "s", "al", "tion", "ing")  # fmt: skip


def vocabulary(count: int = 30_000) -> list[str]:
    """Words of 1 to 4 parts, the frequent ones short."""
    rng = np.random.default_rng(23)
    words: dict[str, None] = {}
    while len(words) < count:
        longest = 1 + min(3, len(words) // 200)
        words["".join(rng.choice(_PARTS, int(rng.integers(1, longest + 1))))] = None
        if longest == 1 and len(words) >= len(_PARTS):
            words["".join(rng.choice(_PARTS, 2))] = None
    return list(words)


def documents(count: int, characters: int = 3400, seed: int = 0) -> list[str]:
    """Texts of about so many characters: words by Zipf's law, sentences, paragraphs."""
    words = np.array(vocabulary(), dtype=object)
    weights = 1 / (np.arange(len(words)) + 2.7)
    rng = np.random.default_rng([29, seed])
    length = characters // 6
    picked = words[rng.choice(len(words), (count, length), p=weights / weights.sum())]
    texts = []
    for row in picked:
        sentences = [" ".join(row[i : i + 14]).capitalize() + "." for i in range(0, length, 14)]
        texts.append("\n".join(" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5)))
    return texts


def reference(count: int, characters: int = 3400) -> list[str]:
    """Pieces of the language reference that the interpreter brings along, again and again until there are enough."""
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    pieces = [text[begin : begin + characters] for begin in range(0, len(text) - characters, characters)]
    return [pieces[number % len(pieces)] for number in range(count)]


def sentences_again(count: int, characters: int = 3400, seed: int = 0) -> list[str]:
    """Texts of sentences of that reference, drawn anew for each: ordinary words, and no two texts alike."""
    from pydoc_data.topics import topics

    prose = (re.sub(r"\s+", " ", paragraph) for name in sorted(topics) for paragraph in topics[name].split("\n\n"))
    found = [sentence for paragraph in prose for sentence in re.findall(r"[A-Z][^.?!]{30,300}[.?!](?= |$)", paragraph)]
    rng = random.Random(f"sentences {seed}")
    texts = []
    for _ in range(count):
        lines, length = [], 0
        while length < characters:
            lines.append(" ".join(rng.choices(found, k=5)))
            length += len(lines[-1]) + 1
        texts.append("\n".join(lines))
    return texts


def shingle_sets(count: int, size: int = 560) -> np.ndarray:
    """(count, size) uint32: hashed shingles, as many as a document of 3.4 KB has."""
    return np.random.default_rng(31).integers(0, 2**32, (count, size), dtype=np.uint32)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--what", choices=("files", "text", "shingles"), default="text")
    parser.add_argument("--documents", type=int, default=10_000)
    return parser.parse_args()

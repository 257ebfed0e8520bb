"""Proves on the written files that nothing of the tests is in training: no item, and no held-out wording."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fledge.core.errors import DataError
from fledge.microworld import tasks
from fledge.microworld.config import Config
from fledge.microworld.facts import PERSON, PLACE
from fledge.microworld.skills import coding, following, identity, reading, safety, sums, translation
from fledge.microworld.skills.base import Item
from fledge.microworld.world import World

_PAIR = re.compile(
    r"(?<!\d)(\d+)(?: coins|个铜币| boxes|个箱子|个| in)?(?:\s*(?:\+|加上?|与|和|plus|and)\s*"
    r"|[^.。\d]{0,40}(?:gets?|came|得到|来了) ?)(?=(\d+))"
)


def check_disjoint(folder: Path) -> list[str]:
    """What of the tests is found in training, one line each; an empty list is the proof that all is well.

    Looks at every page but the planted leaks, at instructions, preferences (prompt and both answers) and tasks. Raises
    `DataError` where the folder is not a world.
    """
    folder = Path(folder)
    world = World(_config(folder))
    items = tasks.test_items(world, world.config.tests_per_skill)
    texts = list(_training_texts(folder))
    haystack = "\n\x00\n".join(texts) + "\n"
    found = [f"key of a test in training: {key}" for key in sorted({i.key for i in items} & set(_keys(folder)))]
    wanted: dict[str, str] = {}
    for item in items:
        # who is asked for is a matter of the whole question: parts of it are in every other one; a phrase may stand
        # anywhere but beside its translation
        own = {"identity": item.patterns, "translation": (item.question,)}.get(
            item.skill, (item.question, *item.patterns)
        )
        for text in own:
            wanted.setdefault(text, f"{item.skill}/{item.language}")
    lines = {line for text in texts for line in (text, *text.split("\n"))}
    found += [f"{i.skill}: {i.question!r} occurs in training" for i in items if i.question in lines]
    found += [f"{wanted[text]}: {text!r} occurs in training" for text in occurring(wanted, haystack)]
    found += _translations_in(items, texts)
    found += _sums_in(items, texts)
    return found + _wordings_in(haystack)


def _config(folder: Path) -> Config:
    try:
        return Config.model_validate(json.loads((folder / "world.json").read_text(encoding="utf-8"))["config"])
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{folder}: not a microworld (world.json cannot be used: {error})") from None


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def _training_texts(folder: Path) -> Iterator[str]:
    for row in _rows(folder / "truth.jsonl"):
        if row["defect"] != "leaked_test":
            yield row["text"]
    for row in _rows(folder / "sft.jsonl"):
        yield "\n".join(m["content"] for m in row["messages"])
    for row in _rows(folder / "preferences.jsonl"):
        yield "\n".join([*(m["content"] for m in row["prompt"]), row["chosen"], row["rejected"]])
    for row in _rows(folder / "tasks.jsonl"):
        yield "\n".join(m["content"] for m in row["messages"])


def _keys(folder: Path) -> Iterator[str]:
    for name in ("sft.jsonl", "preferences.jsonl", "tasks.jsonl"):
        for row in _rows(folder / name):
            meta = row["meta"]
            yield from meta["keys"] if "keys" in meta else [meta["key"]]


def occurring(wanted: Iterable[str], haystack: str) -> list[str]:
    """Those texts that occur in `haystack`; English ones as whole words.

    A hash of each text's last 2^n characters is looked up among those of the haystack, so that thousands of texts
    against ten million characters take seconds; what remains is searched for.
    """
    codes = np.frombuffer(haystack.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    by_length: dict[int, list[str]] = defaultdict(list)
    for text in wanted:
        by_length[min(64, 1 << (len(text).bit_length() - 1))].append(text)
    result = []
    for length, texts in sorted(by_length.items()):
        present = _hashes(codes, length)
        ends = [_hashes(np.array([ord(c) for c in t[-length:]], dtype=np.uint64), length)[0] for t in texts]
        needles, places = np.unique(np.array(ends, dtype=np.uint64), return_inverse=True)
        table = np.zeros(1 << 16, dtype=bool)  # most of the haystack is out after one look at 16 bits
        table[needles & np.uint64(0xFFFF)] = True
        present = present[table[present & np.uint64(0xFFFF)]]
        at = np.searchsorted(needles, present).clip(max=len(needles) - 1)
        hit = np.zeros(len(needles), dtype=bool)
        hit[at[needles[at] == present]] = True
        result += [t for t, p in zip(texts, places, strict=True) if hit[p] and _contains(haystack, t)]
    return result


def _hashes(codes: np.ndarray, length: int) -> np.ndarray:
    """A hash of every `length` codes in a row, `length` a power of two: halves are joined, again and again."""
    values = (codes + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    step = 1
    with np.errstate(over="ignore"):
        while step < length:
            left, right = values[: len(values) - step], values[step:]
            values = (left ^ (left >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) + right * np.uint64(
                0x94D049BB133111EB
            )
            step *= 2
    return values


def _contains(haystack: str, text: str) -> bool:
    if text not in haystack:
        return False
    before = r"(?<![A-Za-z0-9])" if text[0].isascii() and text[0].isalnum() else ""
    after = r"(?![A-Za-z0-9])" if text[-1].isascii() and text[-1].isalnum() else ""
    return re.search(before + re.escape(text) + after, haystack) is not None


def _translations_in(items: Iterable[Item], texts: Iterable[str]) -> list[str]:
    """Phrases of the tests that stand in one text with their translation, as question and answer or otherwise."""
    phrases = {i.patterns for i in items if i.skill == "translation"}
    found = []
    for text in texts:
        for english, chinese in phrases:
            if chinese in text and english in text:
                found.append(f"translation of a test in training: {english!r} and {chinese!r} in {text[:60]!r}")
    return found


def _sums_in(items: Iterable[Item], texts: Iterable[str]) -> list[str]:
    """Pairs of operands of the tests, in either order and in any of the ways in which training writes a sum."""
    keys = {i.key for i in items if i.key.startswith("sum:")}
    found = []
    for text in texts:
        for match in _PAIR.finditer(text):
            if sums.key(int(match[1]), int(match[2])) in keys:
                found.append(f"operands of a test in training: {match[1]} and {match[2]} in {text[:60]!r}")
    return found


def held_out_wordings() -> list[str]:
    """Every question template that only the tests may use."""
    templates: list[str] = []
    for attribute in PERSON + PLACE:
        for language in ("en", "zh"):
            templates.append(attribute.questions(language)[-1])
    for detail in reading.DETAILS:
        templates += [detail.ask_en[-1], detail.ask_zh[-1]]
    for table, count in (
        (sums.ASK, sums.HELD_OUT), (translation.ASK, translation.HELD_OUT), (coding.ASK, coding.HELD_OUT),
        (safety.ASK, safety.HELD_OUT), (identity.CORES, identity.HELD_OUT),
    ):  # fmt: skip
        templates += [t for options in table.values() for t in options[-count:]]
    templates += [t for kinds in following.ASK.values() for o in kinds.values() for t in o[-following.HELD_OUT :]]
    return templates


def _wordings_in(haystack: str) -> list[str]:
    lower = haystack.lower()
    found = []
    for template in held_out_wordings():
        rarest = max(re.split(r"\{\w+\}", template.lower()), key=len)
        if rarest in lower and (match := _as_pattern(template.lower()).search(lower)):
            found.append(f"held-out wording {template!r} occurs in training: {match[0][:80]!r}")
    return found


def _as_pattern(template: str) -> re.Pattern[str]:
    parts = [re.escape(part) for part in re.split(r"\{\w+\}", template)]
    return re.compile(r"[^\n]{1,80}?".join(parts))

"""Rules: named, versioned, pure functions from a text to a value. Thresholds live in the configuration.

The English set follows Gopher (2112.11446, table A1), C4 (1910.10683) and FineWeb (2406.17557); the Chinese set
CT-LLM (2404.04167, SPEC E.3, as the paper's table says it) and FineWeb-2's ``cmn_Hani``; the code set is small and
ours. A page leaves at the first rule, in the order of the table, whose value lies outside its limits.

To add a rule: write a function of `Measures` under ``@rule(name, version, source)``, and give it limits in
``LIMITS`` for the languages that it fits.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from fledge.core.config import Config
from fledge.corpus.measures import Measures

Value = Callable[[Measures], float]


@dataclass(frozen=True)
class Rule:
    name: str
    version: int
    source: str
    value: Value


RULES: dict[str, Rule] = {}


def rule(name: str, version: int, source: str) -> Callable[[Value], Value]:
    """Register a value under a name."""

    def register(function: Value) -> Value:
        assert name not in RULES, name
        RULES[name] = Rule(name, version, source, function)
        return function

    return register


class Limits(Config):
    """Between which values a page stays; both ends belong to it."""

    min: float | None = None
    max: float | None = None

    def broken(self, value: float) -> float | None:
        """The threshold that a value breaks, or None."""
        if self.min is not None and value < self.min:
            return self.min
        if self.max is not None and value > self.max:
            return self.max
        return None


def _at_least(value: float) -> Limits:
    return Limits(min=value)


def _at_most(value: float) -> Limits:
    return Limits(max=value)


def _between(low: float, high: float) -> Limits:
    return Limits(min=low, max=high)


# --- quantity ---------------------------------------------------------------------------------------------------


@rule("words", 1, "Gopher A1")
def words(page: Measures) -> float:
    return len(page.words)


@rule("characters", 1, "CT-LLM table, row 5")
def characters(page: Measures) -> float:
    return len(page.dense)


@rule("mean_word_length", 1, "Gopher A1; CT-LLM row 6 with rjieba's words")
def mean_word_length(page: Measures) -> float:
    return sum(map(len, page.words)) / len(page.words) if page.words else 0.0


@rule("sentences", 1, "CT-LLM row 4")
def sentences(page: Measures) -> float:
    return page.sentences


# --- symbols ----------------------------------------------------------------------------------------------------

_HASHES = re.compile("#")
_ELLIPSIS = re.compile(r"\.{3,}|…+|。{3,}")
_ELLIPSIS_END = re.compile(r"(?:\.{3,}|…|。{3,}|read\s?more|展开|更多)$", re.IGNORECASE | re.MULTILINE)
_BULLET = re.compile(r"^[•‣▪●○◦■□·*\-–]\s*\S", re.MULTILINE)
_WITH_LETTER = re.compile(r"\S*?[^\W\d_]\S*")
_WITH_WORD_CHARACTER = re.compile(r"\S*?[^\W_]\S*")
_BRACKETS = re.compile("【[^】\n]*】|[【】]")
_DIGIT = re.compile(r"\d")
_WORD_CHARACTER = re.compile(r"[^\W_]")
_TERMINAL = re.compile(r"[.!?。！？…:：;；\"'”’」』)）]$", re.MULTILINE)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


@rule("hash_signs", 1, "Gopher A1: per word")
def hash_signs(page: Measures) -> float:
    return _share(len(_HASHES.findall(page.text)), len(page.words))


@rule("ellipses", 1, "Gopher A1: per word")
def ellipses(page: Measures) -> float:
    return _share(len(_ELLIPSIS.findall(page.text)), len(page.words))


@rule("ellipsis_lines", 1, "Gopher A1, CT-LLM row 10: lines that end in an ellipsis or an invitation to read more")
def ellipsis_lines(page: Measures) -> float:
    return _share(len(_ELLIPSIS_END.findall(page.stripped)), len(page.lines))


@rule("bullet_lines", 1, "Gopher A1, CT-LLM row 11")
def bullet_lines(page: Measures) -> float:
    return _share(len(_BULLET.findall(page.stripped)), len(page.lines))


@rule("alphabetic_words", 1, "Gopher A1: words with a letter; calculations do not count (ours)")
def alphabetic_words(page: Measures) -> float:
    words = len(_WITH_WORD_CHARACTER.findall(page.wordy))
    return _share(len(_WITH_LETTER.findall(page.wordy)), words) if words else 1.0


@rule("bracketed", 1, "CT-LLM row 1: characters inside 【】")
def bracketed(page: Measures) -> float:
    return _share(sum(len(found) for found in _BRACKETS.findall(page.text)), len(page.dense))


@rule("digits", 1, "CT-LLM row 9: of letters and digits; calculations do not count (ours)")
def digits(page: Measures) -> float:
    return _share(len(_DIGIT.findall(page.wordy)), len(_WORD_CHARACTER.findall(page.wordy)))


@rule("punctuation", 1, "CT-LLM row 12: share of characters")
def punctuation(page: Measures) -> float:
    return 1 - _share(len(_WORD_CHARACTER.findall(page.dense)), len(page.dense))


@rule("terminal_lines", 1, "FineWeb, FineWeb-2: lines that end in punctuation")
def terminal_lines(page: Measures) -> float:
    return _share(len(_TERMINAL.findall(page.stripped)), len(page.lines))


@rule("lorem_ipsum", 1, "C4")
def lorem_ipsum(page: Measures) -> float:
    return page.text.lower().count("lorem ipsum")


# --- wording ----------------------------------------------------------------------------------------------------

_STOP_EN = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_STOP_ZH = frozenset("的年在月是和日了於于为為有被人中他与與後后也而由")


@rule("stop_words", 1, "Gopher A1; FineWeb-2 cmn_Hani's list for Chinese (any of its characters)")
def stop_words(page: Measures) -> float:
    if page.language == "zh":
        return sum(character in _STOP_ZH for character in page.dense)
    return sum(word in _STOP_EN for word in page.plain_words)


@rule("unique_words", 1, "MAP-NEO (RedPajama-v2 signal), on at most 1,000 words")
def unique_words(page: Measures) -> float:
    """Of the first 1,000 words, because the share falls with length in any text."""
    some = page.plain_words[:1000]
    return _share(len(set(some)), len(some)) if some else 1.0


@rule("unique_characters", 1, "CT-LLM row 13, on at most 500 characters")
def unique_characters(page: Measures) -> float:
    some = page.dense[:500]
    return _share(len(set(some)), len(some)) if some else 1.0


@rule("entropy", 1, "CT-LLM row 14: of words, in nats")
def entropy(page: Measures) -> float:
    total = sum(page.vocabulary.values())
    return -sum(count / total * math.log(count / total) for count in page.vocabulary.values())


# --- repetition -------------------------------------------------------------------------------------------------


@rule("duplicate_lines", 1, "Gopher A1: share of lines that occurred before")
def duplicate_lines(page: Measures) -> float:
    return _share(len(page.lines) - len(set(page.lines)), len(page.lines))


@rule("duplicate_line_characters", 1, "Gopher A1, FineWeb")
def duplicate_line_characters(page: Measures) -> float:
    seen: set[str] = set()
    again = 0
    for line in page.lines:
        again += len(line) if line in seen else 0
        seen.add(line)
    return _share(again, sum(map(len, page.lines)))


def _register_ngrams() -> None:
    for n in (2, 3, 4):
        rule(f"top_{n}gram", 1, "Gopher A1, CT-LLM row 16")(lambda page, n=n: page.top_ngram_share(n))  # type: ignore[misc]
    for n in range(5, 11):
        name = f"duplicate_{n}grams"
        rule(name, 1, "Gopher A1, CT-LLM row 17")(lambda page, n=n: page.duplicate_ngram_share(n))  # type: ignore[misc]


_register_ngrams()

# --- code -------------------------------------------------------------------------------------------------------


@rule("longest_line", 1, "StarCoder (2305.06161): data and minified files have very long lines")
def longest_line(page: Measures) -> float:
    return max(map(len, page.lines), default=0)


@rule("mean_line", 1, "StarCoder")
def mean_line(page: Measures) -> float:
    return _share(sum(map(len, page.lines)), len(page.lines))


@rule("alphanumeric", 1, "StarCoder: share of characters")
def alphanumeric(page: Measures) -> float:
    return _share(len(_WORD_CHARACTER.findall(page.dense)), len(page.dense))


# Where a default differs from its source, it says so. The sources' values are for web pages of 50 words and more; the
# first chain also takes notes, glossaries, references and worked sums, which are short, or repeat for an honest reason.
# Gopher's limits on repeated n-grams are doubled for this; lists of keywords are caught by the variety of their words.
LIMITS: dict[str, dict[str, Limits]] = {
    "en": {
        "words": _between(10, 100_000),  # Gopher: 50
        "unique_words": _at_least(0.2),
        "top_2gram": _at_most(0.20), "top_3gram": _at_most(0.18), "top_4gram": _at_most(0.16),
        "duplicate_5grams": _at_most(0.30), "duplicate_6grams": _at_most(0.28), "duplicate_7grams": _at_most(0.26),
        "duplicate_8grams": _at_most(0.24), "duplicate_9grams": _at_most(0.22), "duplicate_10grams": _at_most(0.20),
        "duplicate_lines": _at_most(0.30), "duplicate_line_characters": _at_most(0.20),
        "mean_word_length": _between(2.5, 10),  # Gopher: 3; glossaries and sums are below
        "hash_signs": _at_most(0.1), "ellipses": _at_most(0.1), "ellipsis_lines": _at_most(0.3),
        "bullet_lines": _at_most(0.9), "alphabetic_words": _at_least(0.6),  # MAP-NEO; Gopher: 0.8
        "stop_words": _at_least(1), "lorem_ipsum": _at_most(0),  # Gopher: 2 stop words, in 50 words
    },
    "zh": {
        "characters": _between(20, 100_000),  # CT-LLM: 50 to 10,000
        "unique_words": _at_least(0.2),  # MAP-NEO's value for English
        "unique_characters": _at_least(0.1),
        "entropy": _at_least(2.0),  # CT-LLM: 3, which no text of fewer than 20 different words can have
        "top_2gram": _at_most(0.20), "top_3gram": _at_most(0.18), "top_4gram": _at_most(0.16),
        "duplicate_5grams": _at_most(0.60), "duplicate_6grams": _at_most(0.60), "duplicate_7grams": _at_most(0.60),
        "duplicate_8grams": _at_most(0.60), "duplicate_9grams": _at_most(0.60), "duplicate_10grams": _at_most(0.60),
        "duplicate_lines": _at_most(0.30),
        "bracketed": _at_most(0.1), "sentences": _at_least(1), "mean_word_length": _between(1, 10),
        "hash_signs": _at_most(0.1), "ellipses": _at_most(0.1), "ellipsis_lines": _at_most(0.3),
        "bullet_lines": _at_most(0.9), "digits": _at_most(0.45),  # CT-LLM: 0.3; worked sums are above
    },
    "code": {
        "longest_line": _at_most(1000), "mean_line": _at_most(100), "alphanumeric": _between(0.25, 0.98),
        "duplicate_lines": _at_most(0.8),
    },
}  # fmt: skip


def _defaults() -> dict[str, dict[str, Limits | None]]:
    return {language: dict(table) for language, table in LIMITS.items()}


class RulesConfig(Config):
    """Limits by language and rule. What is given replaces the default of that rule; ``null`` switches a rule off."""

    limits: dict[str, dict[str, Limits | None]] = Field(default_factory=_defaults)

    @field_validator("limits", mode="before")
    @classmethod
    def _over_defaults(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        merged: dict[str, dict[str, Any]] = {**_defaults()}
        for language, table in given.items():
            if not isinstance(table, dict):
                raise ValueError(f"{language}: expected rules and their limits, found {table!r}")
            for name, limits in table.items():
                if name not in RULES:
                    raise ValueError(f"{language}.{name}: there is no such rule; rules: {', '.join(sorted(RULES))}")
                merged.setdefault(language, {})[name] = limits
        return merged


@dataclass(frozen=True)
class Broken:
    """The rule that a page breaks."""

    rule: str
    version: int
    value: float
    threshold: float


def judge(page: Measures, config: RulesConfig) -> Broken | None:
    """The first rule that a page breaks, or None. A language without rules of its own keeps every page."""
    for name, limits in config.limits.get(page.language, {}).items():
        if limits is None:
            continue
        value = RULES[name].value(page)
        threshold = limits.broken(value)
        if threshold is not None:
            return Broken(name, RULES[name].version, value, threshold)
    return None

"""Which pages stay by the rules: limits by language, and the first that a page breaks.

What is measured is in rulebook.py, published sets of limits in rule_sets.py. Every rule that has limits is measured on
every page, so that other limits can be tried on the values alone (replay.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from fledge.core.config import Config
from fledge.corpus.judging.measures import Measures
from fledge.corpus.judging.rule_sets import SETS, Limits, Table
from fledge.corpus.judging.rulebook import RULES

Values = dict[str, np.ndarray]  # by rule, (pages,) float64


_OURS: dict[str, tuple[str, ...]] = dict.fromkeys(SETS, ("fledge",))


class RulesConfig(Config):
    """Sets of limits, one over the other, and over them single limits, by language."""

    sets: dict[str, tuple[str, ...]] = Field(
        default_factory=lambda: dict(_OURS),
        description="by language: fledge; en: gopher, c4, fineweb, map_neo; zh: fineweb2, ct_llm, ct_llm_code. Of "
        "several, a later one's limits replace an earlier one's of the same rule",
    )
    limits: dict[str, Table] = Field(
        default_factory=dict,
        description="by language and rule: {min: .., max: ..} in place of the sets' limits; null switches a rule off",
    )

    @field_validator("sets", mode="before")
    @classmethod
    def _known_sets(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        for language, names in given.items():
            known = SETS.get(language, {})
            for name in [names] if isinstance(names, str) else names:
                if name not in known:
                    raise ValueError(f"{language}: there is no set {name!r}; sets: {', '.join(known) or 'none'}")
        named = {language: (names,) if isinstance(names, str) else names for language, names in given.items()}
        return {**_OURS, **named}

    @field_validator("limits", mode="before")
    @classmethod
    def _known_rules(cls, given: Any) -> Any:
        for language, table in given.items() if isinstance(given, Mapping) else ():
            if not isinstance(table, Mapping):
                raise ValueError(f"{language}: expected rules and their limits, found {table!r}")
            for name in table:
                if name not in RULES:
                    raise ValueError(f"{language}.{name}: there is no such rule; rules: {', '.join(sorted(RULES))}")
        return given

    def table(self, language: str) -> dict[str, Limits]:
        """Limits of a language by rule, in the order in which they are tried; none for a language without rules."""
        merged: Table = {}
        for name in self.sets.get(language, ()):
            merged |= SETS[language][name]
        merged |= self.limits.get(language, {})
        return {name: limits for name, limits in merged.items() if limits is not None}


@dataclass(frozen=True)
class Broken:
    """The rule that a page breaks."""

    rule: str
    version: int
    value: float
    threshold: float


def measure(page: Measures, config: RulesConfig) -> Values:
    """The values of the language's rules."""
    return {name: RULES[name].value(page).astype(np.float64) for name in config.table(page.language)}


def judge(values: Values, limits: Mapping[str, Limits], pages: int) -> list[Broken | None]:
    """For each page the first rule that it breaks, or None."""
    found: list[Broken | None] = [None] * pages
    for name, allowed in limits.items():
        value = values[name]
        low = value < allowed.min if allowed.min is not None else np.zeros(pages, dtype=bool)
        high = value > allowed.max if allowed.max is not None else np.zeros(pages, dtype=bool)
        for number in np.flatnonzero(low | high).tolist():
            if found[number] is None:
                threshold = allowed.min if low[number] else allowed.max
                found[number] = Broken(name, RULES[name].version, float(value[number]), float(threshold or 0.0))
    return found

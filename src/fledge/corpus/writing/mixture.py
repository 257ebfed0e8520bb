"""How much of what: shares of the training tokens by source, language, kind and licence -> tokens of every group.

A group holds the documents of one source, language, kind and licence. Shares along one axis leave the others as they
are in the corpus: the groups' natural sizes are scaled to all the shares asked for by iterative proportional fitting
(Deming & Stephan, 1940, Ann. Math. Stat. 11), which changes the proportions inside a share as little as possible.

Two bounds hold for every group. No document is read more than ``max_epochs`` times: up to about four epochs repeated
tokens are nearly as good as new ones, and at sixteen worth much less (Muennighoff et al., 2023, arXiv 2305.16264).
And no source that takes part falls below ``floor``. What a bound takes from a group goes to the others of its share
and, where they are full too, to all that have room, in proportion to what was asked of them.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, field_validator

from fledge.core.config import Config
from fledge.core.errors import ConfigError
from fledge.corpus.writing.groups import AXES, Group

_ROUNDS = 1000  # of fitting; with shares that the groups can have, some ten are enough
_EXACT = 1e-9  # of all tokens: less than that does not change between two rounds of a finished fit
_MISSED = 1e-3  # of all tokens: shares that are missed by more cannot be had at once
_WHOLE = 1e-6  # shares that sum to 1 but for this are the whole

Tokens = np.ndarray  # (groups,) float64


class Mixture(Config):
    """Shares of the training tokens. Those of one axis sum to 1 at most; what is not named shares the rest as it lies
    in the corpus, or is left out where nothing is left."""

    sources: dict[str, float] = Field(
        default_factory=dict, description="source -> share of the tokens; a source is the first part of a document's"
    )
    languages: dict[str, float] = Field(default_factory=dict, description="language -> share of the tokens")
    kinds: dict[str, float] = Field(
        default_factory=dict, description="kind of document (html, text, code, instruction) -> share of the tokens"
    )
    licences: dict[str, float] = Field(default_factory=dict, description="licence -> share of the tokens; 0: without")
    max_epochs: float = Field(
        4.0, gt=0, description="no document is read more often; 4 are nearly as good as new data (arXiv 2305.16264)"
    )
    floor: float = Field(
        2e-4,
        ge=0,
        description="least tokens of a source that takes part: below 1 a share of all (RegMix's 2e-4), else a number; "
        "never less than one context",
    )

    @field_validator(*AXES)
    @classmethod
    def _are_shares(cls, values: dict[str, float]) -> dict[str, float]:
        bad = [name for name, share in values.items() if not (math.isfinite(share) and 0 <= share <= 1)]
        if bad:
            raise ValueError(f"{bad[0]}: a share is a number from 0 to 1")
        if sum(values.values()) > 1 + _WHOLE:
            raise ValueError(f"the shares sum to {sum(values.values()):.6g}, which is more than 1")
        return values


@dataclass(frozen=True)
class Plan:
    """Tokens of each group: what the shares ask for, and what the bounds leave of it."""

    groups: tuple[Group, ...]
    total: float
    asked: Tokens
    planned: Tokens
    least: Tokens
    most: Tokens

    @property
    def cut(self) -> Tokens:
        """(groups,) tokens that ``max_epochs`` takes from what was asked."""
        return np.maximum(self.asked - self.most, 0.0)

    @property
    def raised(self) -> Tokens:
        """(groups,) tokens that ``floor`` adds to what was asked."""
        return np.maximum(self.least - self.asked, 0.0)


def allot(groups: Sequence[Group], mixture: Mixture, total: float, least: float = 0.0) -> Plan:
    """Share ``total`` tokens out among the groups. ``least``: tokens below which a source is as good as not there (one
    context). Raises `ConfigError` for unknown names, for shares that cannot be had at once, and where the documents
    that take part are too few for ``total`` tokens at ``max_epochs``."""
    natural = np.array([group.tokens for group in groups], np.float64)
    margins = [_margin(groups, axis, getattr(mixture, axis)) for axis in AXES if getattr(mixture, axis)]
    none, all_ = np.zeros(len(groups)), np.full(len(groups), float(total))
    asked = _fit(natural * (total / max(1.0, natural.sum())), margins, total, none, all_)
    _require_met(margins, asked, total)
    most = np.where(asked > 0, natural * mixture.max_epochs, 0.0)
    if most.sum() < total:
        raise ConfigError(
            f"mixture: {total:,.0f} tokens are asked for, but {mixture.max_epochs:g} epochs of the documents that take "
            f"part are only {most.sum():,.0f}. Train on fewer tokens, give them more shares, or raise "
            "mixture.max_epochs."
        )
    most = np.minimum(most, total)
    floor = mixture.floor * total if mixture.floor < 1 else mixture.floor
    lowest = np.minimum(_floor(groups, natural, asked, max(floor, least)), most)
    if lowest.sum() > total:
        raise ConfigError(
            f"mixture.floor={mixture.floor:g}: the least of all sources together are {lowest.sum():,.0f} tokens, and "
            f"the run has {total:,.0f}"
        )
    return Plan(tuple(groups), total, asked, _fit(asked, margins, total, lowest, most), lowest, most)


@dataclass(frozen=True)
class _Margin:
    """Shares along one axis: ``label[g]`` is the place of group g in ``share``; the last is what is not named."""

    axis: str
    names: tuple[str, ...]
    label: np.ndarray
    share: np.ndarray


def _margin(groups: Sequence[Group], axis: str, wanted: Mapping[str, float]) -> _Margin:
    known = sorted({group.on(axis) for group in groups})
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"mixture.{axis}: the shards hold no {name!r}{hint} (known: {', '.join(known)})")
    rest = 1.0 - sum(wanted.values())
    if set(known) <= set(wanted) and abs(rest) > _WHOLE:
        raise ConfigError(f"mixture.{axis}: all are named, so the shares must sum to 1, not {sum(wanted.values()):g}")
    places = {name: place for place, name in enumerate(wanted)}
    label = np.array([places.get(group.on(axis), len(places)) for group in groups])
    share = np.array([*wanted.values(), rest if rest > _WHOLE else 0.0])
    return _Margin(axis, (*wanted, "the rest"), label, share / share.sum())


def _fit(start: Tokens, margins: Sequence[_Margin], total: float, low: Tokens, high: Tokens) -> Tokens:
    """Scale to every margin in turn until nothing moves, within the bounds; at last to ``total``, so that what full
    groups cannot take goes to the others."""
    tokens = start.copy()
    for _ in range(_ROUNDS):
        before = tokens.copy()
        for margin in margins:
            places = len(margin.share)
            room = [np.bincount(margin.label, bound, places) for bound in (low, high)]
            for place, wanted in enumerate(_scale(margin.share * total, total, *room)):
                here = margin.label == place
                tokens[here] = _scale(tokens[here], wanted, low[here], high[here])
        if np.abs(tokens - before).max(initial=0.0) <= _EXACT * total:
            break
    return _scale(tokens, total, low, high)


def _scale(tokens: Tokens, total: float, low: Tokens, high: Tokens) -> Tokens:
    """``clip(factor * tokens, low, high)`` with the one factor that makes it sum to ``total``; all at a bound where
    none does. The sum is linear in the factor between the places where a group meets a bound."""
    some = tokens > 0
    marks = np.unique(np.concatenate([[0.0], low[some] / tokens[some], high[some] / tokens[some]]))
    sums = [float(np.clip(mark * tokens, low, high).sum()) for mark in marks]
    return np.clip(float(np.interp(total, sums, marks)) * tokens, low, high)


def _require_met(margins: Sequence[_Margin], asked: Tokens, total: float) -> None:
    for margin in margins:
        found = np.bincount(margin.label, asked, len(margin.share)) / total
        worst = int(np.abs(found - margin.share).argmax())
        if abs(found[worst] - margin.share[worst]) > _MISSED:
            raise ConfigError(
                f"mixture.{margin.axis}: {margin.names[worst]} was asked to be {margin.share[worst]:.4g} of the "
                f"tokens, but beside the other shares it can only be {found[worst]:.4g}: such documents are not there"
            )


def _floor(groups: Sequence[Group], natural: Tokens, asked: Tokens, floor: float) -> Tokens:
    """(groups,) the least of each source, spread over its groups that take part as they lie in the corpus."""
    sources = {name: place for place, name in enumerate(sorted({group.source for group in groups}))}
    label = np.array([sources[group.source] for group in groups])
    part = np.where(asked > 0, natural, 0.0)
    whole = np.bincount(label, part, len(sources))[label]
    return np.divide(part * floor, whole, out=np.zeros_like(part), where=whole > 0)

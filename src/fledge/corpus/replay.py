"""What thresholds do to a corpus, from its side table of values alone: those that it was made with, or others.

Of every rule: the pages that leave by it (``first``: in the order of the stages nothing before it refuses them), those
that it would take alone (``alone``: it is broken), and those that only it takes (``only``: nothing else is broken).
Duplicates are not replayed: they are found among what stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fledge.core.errors import ArtefactError
from fledge.corpus.chain import ChainConfig
from fledge.corpus.judging.personal import KINDS, PersonalConfig
from fledge.corpus.judging.rule_sets import Limits
from fledge.corpus.tables import parts
from fledge.corpus.values import read_values

SAMPLES = 3  # of what each rule takes, by language
_HELD = 200_000  # pages whose values are kept for histograms: every one, or every second, third, ...
Broken = dict[str, np.ndarray]  # stage.rule -> (pages,) bool, in the order of the stages


@dataclass
class Effect:
    """What one rule does to the pages of one language."""

    first: int = 0
    alone: int = 0
    only: int = 0
    samples: list[dict[str, object]] = field(default_factory=list)


@dataclass
class Replay:
    """``overlap[a][b]``: pages that both rules refuse. ``values[language][name]``: some values, for histograms."""

    pages: Counter[str] = field(default_factory=Counter)  # by language
    kept: Counter[str] = field(default_factory=Counter)
    effects: dict[str, dict[str, Effect]] = field(default_factory=dict)  # stage.rule -> language
    overlap: dict[str, Counter[str]] = field(default_factory=dict)
    values: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    changed: int = 0  # pages that stayed and would leave, or left and would stay
    unmeasured: Counter[str] = field(default_factory=Counter)  # pages on which a limit's value was not measured

    def total(self, rule: str) -> Effect:
        every = self.effects.get(rule, {}).values()
        return Effect(*(sum(getattr(e, name) for e in every) for name in ("first", "alone", "only")))


def replay(corpus: Path, config: ChainConfig) -> Replay:
    """Read ``corpus/values`` once, a file at a time. Raises `ArtefactError` where the corpus has none."""
    files = parts(corpus / "values")
    if not files:
        raise ArtefactError(f"{corpus}: has no values/*.parquet; it is no corpus, or one of an earlier version")
    result = Replay()
    held: dict[str, dict[str, list[np.ndarray]]] = {}
    rows = 0
    for path in files:
        about, values = read_values(path)
        languages = np.array(about["language"], dtype=object)
        broken = _broken(languages, values, config, result.unmeasured)
        _count(result, about, values, languages, broken)
        every = max(1, rows // _HELD)
        rows += len(languages)
        for language in np.unique(languages.astype(str)):
            chosen = np.flatnonzero(languages == language)[::every]
            for name, column in values.items():
                some = column[chosen]
                held.setdefault(language, {}).setdefault(name, []).append(some[~np.isnan(some)])
    result.values = {la: {n: np.concatenate(v) for n, v in columns.items()} for la, columns in held.items()}
    return result


def _broken(
    languages: np.ndarray, values: Mapping[str, np.ndarray], config: ChainConfig, unmeasured: Counter[str]
) -> Broken:
    """Which pages each step refuses. NaN, which is what was not measured, breaks nothing."""
    code, nothing = languages == "code", np.full(len(languages), np.nan)
    found: Broken = {}
    share, count = values["damage.share"], values["damage.characters"]
    found["damage.mojibake"] = (share > config.damage.share) & (count >= config.damage.characters)
    foreign = ~code & ~np.isin(languages, config.languages.keep)
    for language in sorted(set(languages[foreign])):
        found[f"language.{language}"] = languages == language
    least = np.array([config.languages.threshold(language) for language in languages], dtype=np.float64)
    found["language.uncertain"] = ~foreign & ~code & (values["language.score"] < least)
    gone = values["lines.share"]
    found["lines.too_many"] = (gone > config.lines.most) | (gone >= 1)  # of which nothing is left
    found["lines.repeats"] = values["lines.repeats"] > config.duplicates.repeats.most
    found["personal.any"] = np.nan_to_num(_dropping(values, code, config.personal)) > config.personal.most
    dense, heavy = values["toxic.density"] > config.toxic.density, values["toxic.weight"] >= config.toxic.least
    found["toxic.insults"] = dense & heavy
    found["toxic.classifier"] = values.get("toxic.probability", nothing) > config.toxic.probability
    found["contamination.any"] = values["contamination.share"] > 0
    for language in (*config.languages.keep, "code"):
        here = languages == language
        for name, limits in config.rules.table(language).items():
            key = f"rules.{name}"
            column = values.get(key, nothing)
            unmeasured[f"{language}.{name}"] += int((here & np.isnan(column)).sum())
            found[key] = found.get(key, np.zeros(len(languages), dtype=bool)) | (here & _outside(column, limits))
    stays = ~np.any(list(found.values()), axis=0)  # models score only these
    for language in config.languages.keep:
        here = languages == language
        for name, limits in config.scores.table(language).items():
            key, column = f"scores.{name}", values.get(name, nothing)
            unmeasured[f"{language}.{name}"] += int((here & stays & np.isnan(column)).sum())
            found[key] = found.get(key, np.zeros(len(languages), dtype=bool)) | (here & _outside(column, limits))
    return found


def _dropping(values: Mapping[str, np.ndarray], code: np.ndarray, config: PersonalConfig) -> np.ndarray:
    """Findings of the kinds for which a page is dropped."""
    total = np.zeros(len(code))
    for kind in KINDS:
        drops = [config.action_of(kind, code=of) == "drop" for of in (False, True)]
        total += np.where(np.where(code, drops[1], drops[0]), values[f"personal.{kind}"], 0)
    return total


def _outside(column: np.ndarray, limits: Limits) -> np.ndarray:
    low = column < limits.min if limits.min is not None else np.zeros(len(column), dtype=bool)
    high = column > limits.max if limits.max is not None else np.zeros(len(column), dtype=bool)
    return low | high


def _count(
    result: Replay, about: Mapping[str, list[str]], values: Mapping[str, np.ndarray], languages: np.ndarray,
    broken: Broken,
) -> None:  # fmt: skip
    matrix = np.array([broken[name] for name in broken])  # (rules, pages)
    times, first = matrix.sum(0), matrix.argmax(0)
    gone = times > 0
    result.pages.update(languages.tolist())
    result.kept.update(languages[~gone].tolist())
    result.changed += int((gone != (np.array(about["stage"], dtype=object) != "")).sum())
    both = matrix.astype(np.float32) @ matrix.astype(np.float32).T
    for number, name in enumerate(broken):
        if not matrix[number].any():
            continue
        other = zip(broken, both[number].astype(int).tolist(), strict=True)
        result.overlap.setdefault(name, Counter()).update({n: c for n, c in other if c})
        for language in sorted(set(languages[matrix[number]])):
            effect = result.effects.setdefault(name, {}).setdefault(language, Effect())
            here = matrix[number] & (languages == language)
            effect.first += int((here & (first == number)).sum())
            effect.alone += int(here.sum())
            effect.only += int((here & (times == 1)).sum())
            _sample(effect, np.flatnonzero(here & (first == number)), name, about, values)


def _sample(
    effect: Effect, places: np.ndarray, name: str, about: Mapping[str, list[str]], values: Mapping[str, np.ndarray]
) -> None:
    for place in places[: SAMPLES - len(effect.samples)].tolist():
        value = values[name][place] if name in values else float("nan")
        row = {key: about[key][place] for key in ("id", "url", "excerpt")}
        effect.samples.append({**row, "value": None if np.isnan(value) else float(value)})


def ordered(result: Replay) -> Iterator[tuple[str, Effect]]:
    """Rules that take something, those that take most first."""
    totals = {name: result.total(name) for name in result.effects}
    yield from sorted(totals.items(), key=lambda item: (-item[1].alone, item[0]))

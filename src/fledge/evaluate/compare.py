"""Evaluations side by side: paired differences between two, and one table over many."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fledge.core.errors import ArtefactError
from fledge.evaluate.metrics import paired_difference

Pairs = dict[tuple[str, str], list[tuple[float, float]]]


def read_results(folder: Path) -> list[dict[str, Any]]:
    """The items of an evaluation. Raises ArtefactError where there is none."""
    path = Path(folder) / "results.jsonl"
    if not path.exists():
        raise ArtefactError(f"{folder} is no finished evaluation: it has no results.jsonl")
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def read_scores(folder: Path) -> dict[str, Any]:
    """The scores of an evaluation. Raises ArtefactError where there are none."""
    path = Path(folder) / "scores.json"
    try:
        scores: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtefactError(f"{folder} is no finished evaluation: it has no scores.json") from None
    except ValueError as problem:
        raise ArtefactError(f"{path}: {problem}") from None
    return scores


def compare(before: Path, after: Path, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """What `after` gains over `before` on the items that both have.

    `{"skills": {skill: {language: {mean, low, high, n, before, after}}}, "only_before": n, "only_after": n}`: mean is
    the difference, its 95% interval by paired bootstrap over items. Items of one side are counted, never imputed. The
    same id with another prompt is an error.
    """
    pairs, counts = paired(before, after)
    skills: dict[str, dict[str, Any]] = defaultdict(dict)
    for (skill, language), values in sorted(pairs.items()):
        ours, theirs = zip(*values, strict=True)
        found = paired_difference(ours, theirs, resamples, seed)
        means = {"before": sum(ours) / len(ours), "after": sum(theirs) / len(theirs)}
        skills[skill][language] = found.plain() | means
    return {"skills": dict(skills), "only_before": counts[0], "only_after": counts[1]}


def paired(before: Path, after: Path) -> tuple[Pairs, tuple[int, int]]:
    """Scores (before, after) of the items that both have, by skill and language; how many only the one, only the other
    has."""
    left, right = ({row["id"]: row for row in read_results(folder)} for folder in (before, after))
    pairs: Pairs = defaultdict(list)
    for key, row in left.items():
        other = right.get(key)
        if other is None:
            continue
        if other["prompt"] != row["prompt"]:
            raise ArtefactError(f"item {key!r} has another prompt in {before} than in {after}: they cannot be compared")
        pairs[row["skill"], row["language"]].append((row["score"], other["score"]))
    return pairs, (len(left.keys() - right.keys()), len(right.keys() - left.keys()))


def table(folders: Mapping[str, Path]) -> dict[str, Any]:
    """One table over evaluations: `{"columns": [{"skill", "languages"}], "rows": [{"name", "cells", "skipped", ...}]}`.

    `cells[skill][language]` is an entry of `scores.json`, missing where the skill was not evaluated: see `skipped`.
    """
    scores = {name: read_scores(folder) for name, folder in folders.items()}
    languages: dict[str, set[str]] = defaultdict(set)
    for one in scores.values():
        for skill, entries in one["skills"].items():
            languages[skill] |= entries.keys()
        for entry in one["skipped"]:
            languages[entry["skill"]].add(entry["language"])
    columns = [{"skill": skill, "languages": sorted(found, reverse=True)} for skill, found in sorted(languages.items())]
    rows = [
        {"name": name, "cells": one["skills"], "skipped": one["skipped"], "prompt": one.get("prompt", "")}
        for name, one in scores.items()
    ]
    return {"columns": columns, "rows": rows}

"""Precision and recall of every step against planted truth.

``truth.jsonl`` says of each page what was planted in it: url, language, kind, defect (null for a clean page),
duplicate_of, text. The report compares it with documents and ledger. Only the names of the defects are shared with
whoever planted them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from fledge.core.errors import DataError
from fledge.corpus.tables import rows

DEFECTS = (
    "exact_duplicate", "near_duplicate", "keyword_spam", "mojibake", "wrong_language", "personal_data", "toxic",
    "leaked_test",
)  # fmt: skip
_DUPLICATES = {"exact_duplicate", "near_duplicate"}
_BY_STAGE = {
    "damage": "mojibake", "language": "wrong_language", "personal": "personal_data", "toxic": "toxic",
    "contamination": "leaked_test", "duplicates": "duplicate",
}  # fmt: skip
_REPETITION = ("unique_", "top_", "duplicate_", "entropy")


def detector(stage: str, rule: str) -> str | None:
    """The defect that a stage and rule are made to find; None where a rule is about quality in general."""
    if stage == "rules":
        return "keyword_spam" if rule.startswith(_REPETITION) else None
    if stage == "language" and rule == "uncertain":
        return None  # no other language was named
    return _BY_STAGE.get(stage)


def truth_report(path: Path, corpus: Path) -> dict[str, Any]:
    """Per defect and language: planted, found (by its own detector), removed (by any), recall, precision; clean pages lost.

    A planted duplicate counts as found when it or its original left as a duplicate: the survivor is ours to choose.
    Raises `DataError` where truth and corpus name no common URL.
    """
    truth = _truth(path)
    dropped = {row["url"]: row for row in rows(corpus / "ledger") if row["url"] in truth}
    kept = {row["url"] for row in rows(corpus / "documents", ["url"])} & truth.keys()
    if not dropped and not kept:
        raise DataError(f"{path}: none of its URLs is in the corpus; is it the truth of these inputs?")
    groups = _groups(truth)
    table: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for url, row in truth.items():
        _judge(url, row, dropped.get(url), groups, dropped, table)
    by_url = {url for url in truth if url in kept or url in dropped}
    report = {
        "pages": len(truth), "missing": len(truth) - len(by_url), "extracted_alike": _alike(truth, corpus),
        "defects": {d: {la: _rates(c) for la, c in sorted(table[d].items())} for d in DEFECTS if d in table},
        "clean": {la: _rates(c) for la, c in sorted(table["clean"].items())},
        "clean_lost": _lost(truth, dropped, groups),
    }  # fmt: skip
    report["summary"] = _summary(table)
    return report


def _truth(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                found[row["url"]] = row
                known = row["defect"] is None or row["defect"] in DEFECTS
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}:{number}: not a row of truth (url, language, defect): {error!r}") from None
            if not known:
                raise DataError(f"{path}:{number}: unknown defect {row['defect']!r}; known: {', '.join(DEFECTS)}")
    return found


def _groups(truth: dict[str, dict[str, Any]]) -> dict[str, str]:
    """URL -> the original that it is a copy of (itself where it is none)."""

    def root(url: str) -> str:
        seen = {url}
        while (above := truth.get(url, {}).get("duplicate_of")) and above not in seen:
            seen.add(above)
            url = above
        return url

    return {url: root(url) for url in truth}


def _judge(
    url: str, row: dict[str, Any], drop: dict[str, Any] | None, groups: dict[str, str],
    dropped: dict[str, dict[str, Any]], table: dict[str, dict[str, Counter[str]]],
) -> None:  # fmt: skip
    """Count one page of the truth into the table."""
    language, defect = row["language"], row["defect"]
    accused = detector(drop["stage"], drop["rule"]) if drop else None
    if defect in _DUPLICATES:
        original = dropped.get(row["duplicate_of"])
        mine = accused == "duplicate" or (original is not None and original["stage"] == "duplicates")
        table[defect][language].update(planted=1, found=mine, removed=mine or drop is not None)
    elif defect is not None:
        table[defect][language].update(planted=1, found=accused == defect, removed=drop is not None)
    twin = accused == "duplicate" and any(g == groups[url] and u != url for u, g in _members(groups, url))
    if defect is None:
        table["clean"][language].update(planted=1, lost=drop is not None and not twin)
    if accused == "duplicate":
        for name in _DUPLICATES:
            table[name][language].update(accused=1, right=twin)
    elif accused is not None:
        table[accused][language].update(accused=1, right=accused == defect)


def _members(groups: dict[str, str], url: str) -> list[tuple[str, str]]:
    """The pages of a page's group. (Built once; the function keeps it beside the groups it was made from.)"""
    cache: dict[str, list[tuple[str, str]]] = getattr(_members, "cache", {})
    if getattr(_members, "of", None) is not groups:
        cache = defaultdict(list)
        for member, group in groups.items():
            cache[group].append((member, group))
        _members.cache, _members.of = cache, groups  # type: ignore[attr-defined]
    return cache[groups[url]]


def _rates(counts: Counter[str]) -> dict[str, Any]:
    result: dict[str, Any] = {key: int(value) for key, value in sorted(counts.items())}
    if "lost" in counts:
        result["false_positive_rate"] = round(counts["lost"] / counts["planted"], 4)
        return result
    result["recall"] = round(counts["found"] / counts["planted"], 4) if counts["planted"] else None
    result["removed_rate"] = round(counts["removed"] / counts["planted"], 4) if counts["planted"] else None
    result["precision"] = round(counts["right"] / counts["accused"], 4) if counts["accused"] else None
    return result


def _summary(table: dict[str, dict[str, Counter[str]]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in (*DEFECTS, "clean"):
        if name in table:
            total: Counter[str] = Counter()
            for counts in table[name].values():
                total.update(counts)
            rates = _rates(total)
            keys = ("planted", "recall", "removed_rate", "precision", "lost", "false_positive_rate")
            result[name] = {key: rates[key] for key in keys if key in rates}
    return result


def _lost(truth: dict[str, dict[str, Any]], dropped: dict[str, dict[str, Any]], groups: dict[str, str]) -> dict[str, Any]:
    """Which rules took clean pages, with examples: what to tune."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for url, row in truth.items():
        drop = dropped.get(url)
        if row["defect"] is None and drop and not (drop["stage"] == "duplicates" and len(_members(groups, url)) > 1):
            name = f"{drop['stage']}.{drop['rule']}"
            counts[name] += 1
            if len(examples[name]) < 3:
                examples[name].append({"url": url, "kind": row.get("kind"), "value": drop["value"], "excerpt": drop["excerpt"]})
    return {name: {"count": count, "examples": examples[name]} for name, count in counts.most_common()}


def _alike(truth: dict[str, dict[str, Any]], corpus: Path) -> float | None:
    """Mean share of the words of clean pages' true text that arrived in the document."""
    shares = []
    for row in rows(corpus / "documents", ["url", "text"]):
        true = truth.get(row["url"])
        if true and true["defect"] is None and true.get("text"):
            wanted = Counter(true["text"].split())
            found = wanted & Counter(row["text"].split())
            shares.append(sum(found.values()) / max(1, sum(wanted.values())))
    return round(sum(shares) / len(shares), 4) if shares else None

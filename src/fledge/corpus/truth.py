"""Precision and recall of every step against planted truth.

``truth.jsonl`` says of each page what was planted in it: url, language, kind, defect (null for a clean page),
duplicate_of, text. The report compares it with documents and ledger. Only the names of the defects are shared with
whoever planted them.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fledge.core.errors import DataError
from fledge.corpus.tables import rows

DEFECTS = (
    "exact_duplicate", "near_duplicate", "keyword_spam", "mojibake", "wrong_language", "personal_data", "toxic",
    "leaked_test",
)  # fmt: skip
_DUPLICATES = ("exact_duplicate", "near_duplicate")
_BY_STAGE = {
    "damage": "mojibake", "language": "wrong_language", "personal": "personal_data", "toxic": "toxic",
    "contamination": "leaked_test", "duplicates": "duplicate",
}  # fmt: skip
_REPETITION = ("unique_", "top_", "duplicate_", "entropy")
_EXAMPLES = 3
Row = dict[str, Any]


def detector(stage: str, rule: str) -> str | None:
    """The defect that a stage and rule are made to find; None where a rule is about quality in general."""
    if stage == "rules":
        return "keyword_spam" if rule.startswith(_REPETITION) else None
    if stage == "language" and rule == "uncertain":
        return None  # no other language was named
    return _BY_STAGE.get(stage)


def truth_report(path: Path, corpus: Path) -> dict[str, Any]:
    """Per defect and language: planted, found (by its own detector), removed (by any), recall, precision.

    A planted duplicate counts as found when it or its original left as a duplicate: the survivor is ours to choose.
    Clean pages that were lost are listed by rule. Raises `DataError` where truth and corpus name no common URL.
    """
    judge = _Judge(_read(path))
    judge.dropped = {row["url"]: row for row in rows(corpus / "ledger") if row["url"] in judge.truth}
    kept = {row["url"] for row in rows(corpus / "documents", ["url"])} & judge.truth.keys()
    if not judge.dropped and not kept:
        raise DataError(f"{path}: none of its URLs is in the corpus; is it the truth of these inputs?")
    for url in judge.truth:
        judge.count(url)
    table = judge.table
    return {
        "pages": len(judge.truth),
        "missing": len(judge.truth.keys() - judge.dropped.keys() - kept),
        "words_extracted": _extracted(judge.truth, corpus),
        "defects": {d: {la: _rates(c) for la, c in sorted(table[d].items())} for d in DEFECTS if d in table},
        "clean": {la: _rates(c) for la, c in sorted(table["clean"].items())},
        "clean_lost": judge.lost,
        "summary": {name: _overall(table[name]) for name in (*DEFECTS, "clean") if name in table},
    }


def _read(path: Path) -> dict[str, Row]:
    found: dict[str, Row] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                found[row["url"]] = {"language": row["language"], "duplicate_of": None, **row}
                known = row["defect"] is None or row["defect"] in DEFECTS
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}:{number}: not a row of truth (url, language, defect): {error!r}") from None
            if not known:
                raise DataError(f"{path}:{number}: unknown defect {row['defect']!r}; known: {', '.join(DEFECTS)}")
    return found


@dataclass
class _Judge:
    """Counts pages of the truth, by defect and language."""

    truth: dict[str, Row]
    dropped: dict[str, Row] = field(default_factory=dict)
    table: dict[str, dict[str, Counter[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(Counter)))
    lost: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.group = {url: self._original(url) for url in self.truth}
        self.size = Counter(self.group.values())

    def _original(self, url: str) -> str:
        seen = {url}
        while (above := self.truth.get(url, {}).get("duplicate_of")) and above not in seen:
            seen.add(above)
            url = above
        return url

    def count(self, url: str) -> None:
        row, drop = self.truth[url], self.dropped.get(url)
        language, defect = row["language"], row["defect"]
        accused = detector(drop["stage"], drop["rule"]) if drop else None
        twin = accused == "duplicate" and self.size[self.group[url]] > 1
        if defect is None:
            lost = drop is not None and not twin
            self.table["clean"][language].update(planted=1, lost=lost)
            if lost:
                self._note(url, row)
        else:
            found = accused == defect
            if defect in _DUPLICATES:
                original = self.dropped.get(row["duplicate_of"])
                found = accused == "duplicate" or (original is not None and original["stage"] == "duplicates")
            self.table[defect][language].update(planted=1, found=found, removed=found or drop is not None)
        if accused == "duplicate":
            for name in _DUPLICATES:
                self.table[name][language].update(accused=1, right=twin)
        elif accused is not None:
            self.table[accused][language].update(accused=1, right=accused == defect)

    def _note(self, url: str, row: Row) -> None:
        drop = self.dropped[url]
        entry = self.lost.setdefault(f"{drop['stage']}.{drop['rule']}", {"count": 0, "examples": []})
        entry["count"] += 1
        if len(entry["examples"]) < _EXAMPLES:
            shown = {"url": url, "kind": row.get("kind"), "value": drop["value"], "excerpt": drop["excerpt"]}
            entry["examples"].append(shown)


def _rates(counts: Counter[str]) -> dict[str, Any]:
    result: dict[str, Any] = {key: int(value) for key, value in sorted(counts.items())}
    if "lost" in counts:
        result["false_positive_rate"] = round(counts["lost"] / counts["planted"], 4)
        return result
    result["recall"] = round(counts["found"] / counts["planted"], 4) if counts["planted"] else None
    result["removed_rate"] = round(counts["removed"] / counts["planted"], 4) if counts["planted"] else None
    result["precision"] = round(counts["right"] / counts["accused"], 4) if counts["accused"] else None
    return result


def _overall(languages: dict[str, Counter[str]]) -> dict[str, Any]:
    total: Counter[str] = Counter()
    for counts in languages.values():
        total.update(counts)
    keys = ("planted", "recall", "removed_rate", "precision", "lost", "false_positive_rate")
    rates = _rates(total)
    return {key: rates[key] for key in keys if key in rates}


def _extracted(truth: dict[str, Row], corpus: Path) -> float | None:
    """Mean share of the words of clean pages' true text that arrived in the document."""
    shares = []
    for row in rows(corpus / "documents", ["url", "text"]):
        true = truth.get(row["url"])
        if true and true["defect"] is None and true.get("text"):
            wanted = Counter(true["text"].split())
            shares.append(sum((wanted & Counter(row["text"].split())).values()) / max(1, sum(wanted.values())))
    return round(sum(shares) / len(shares), 4) if shares else None

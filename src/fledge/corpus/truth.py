"""Precision and recall of every step against planted truth.

``truth.jsonl`` says of each page what was planted in it: url, language, kind, defect (null for a clean page),
duplicate_of, text, and in ``meta`` what else is known: ``form`` (of the defect), ``decoy`` (a clean page that looks
like a defect), ``jaccard`` (true similarity of a near copy), ``traces`` (planted strings, with how often each may be
left in a page that was repaired). The report compares it with documents and ledger. Only names are shared with whoever
planted: those of the defects and of these keys.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from fledge.core.errors import DataError
from fledge.corpus.tables import rows

_RULES = ("rules.*",)
_UNREADABLE = ("rules.*", "extract.empty")  # nothing but frame: the extractor may find nothing at all
_NO_LANGUAGE = ("rules.*", "language.*", "extract.empty")
_PERSONAL = ("personal.*",)
_DUPLICATE = ("duplicates.*",)
# Which stage.rule may find which defect; the first one's stage is the one that answers for it.
DETECTORS: dict[str, tuple[str, ...]] = {
    "exact_duplicate": _DUPLICATE, "near_duplicate": _DUPLICATE, "leaked_test": ("contamination.*",),
    "personal_data": _PERSONAL, "personal_email": _PERSONAL, "personal_phone": _PERSONAL,
    "personal_identity": _PERSONAL, "personal_card": _PERSONAL, "personal_ip": _PERSONAL,
    "wrong_language": ("language.*",), "mojibake": ("damage.*",), "toxic": ("toxic.*",),
    "keyword_spam": ("rules.*", "language.*"),  # nouns in a row are of no language
    "repeated_lines": _RULES, "repeated_paragraphs": _RULES, "shouting": _RULES, "brackets": _RULES,
    "boilerplate": _UNREADABLE, "truncated": _UNREADABLE, "bullet_list": _NO_LANGUAGE, "link_list": _NO_LANGUAGE,
    "placeholder": _UNREADABLE, "search_listing": _UNREADABLE, "too_short": _NO_LANGUAGE, "gibberish": _NO_LANGUAGE,
    "lorem_ipsum": _NO_LANGUAGE, "code_remains": _NO_LANGUAGE, "symbols": _NO_LANGUAGE, "digit_table": _NO_LANGUAGE,
    "double_entities": (*_NO_LANGUAGE, "damage.*"),
}  # fmt: skip
_COPIES = ("exact_duplicate", "near_duplicate")
_EXAMPLES = 5
_EXCERPT = 160
Row = dict[str, Any]
Counts = dict[str, dict[str, Counter[str]]]  # name -> language -> what was counted


def stage_of(defect: str) -> str:
    """The stage that answers for a defect."""
    return DETECTORS[defect][0].partition(".")[0]


def detects(stage: str, rule: str, defect: str | None) -> bool:
    """Whether a drop by this rule is right for a page with this defect."""
    return defect is not None and any(fnmatchcase(f"{stage}.{rule}", pattern) for pattern in DETECTORS[defect])


def truth_report(path: Path, corpus: Path) -> dict[str, Any]:
    """By language: of each defect, form and stage what was planted, found, and wrongly accused; what clean pages lost.

    ``recall`` is what was found by a detector of the defect, or repaired; ``removed_rate`` what left for any reason or
    was repaired. ``precision`` is that of the stage which answers for the defect. A planted copy counts as found when
    it or its original left as a duplicate: the survivor is ours to choose; where one of the two left for another
    reason, there was nothing to find (``moot``). Clean pages and decoys that were lost are listed by rule. Raises
    `DataError` where truth and corpus name no common URL.
    """
    judge = _Judge(_read(path))
    judge.read_corpus(corpus)
    if not judge.dropped and not judge.kept:
        raise DataError(f"{path}: none of its URLs is in the corpus; is it the truth of these inputs?")
    for url in judge.truth:
        judge.count(url)
    defects = _order(judge.defects)
    for defect, languages in defects.items():
        for language, counts in languages.items():
            of_stage = judge.stages[stage_of(defect)][language]
            counts.update(accused=of_stage["accused"], right=of_stage["right"])
    return {
        "pages": len(judge.truth),
        "missing": len(judge.truth.keys() - judge.dropped.keys() - judge.kept),
        "words_extracted": _mean(judge.arrived),
        "words_added": _mean(judge.added),
        "stages": _table(judge.stages),
        "defects": _table(defects),
        "forms": _table(dict(sorted(judge.forms.items()))),
        "similarity": _table(dict(sorted(judge.bands.items()))),
        "clean": _table({"clean": judge.clean["clean"]})["clean"] if "clean" in judge.clean else {},
        "decoys": _table({name: counts for name, counts in judge.clean.items() if name != "clean"}),
        "clean_lost": judge.lost,
        "missed": judge.missed,
        "summary": _summary(defects, judge),
    }


def _read(path: Path) -> dict[str, Row]:
    found: dict[str, Row] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                row = {"language": row["language"], "duplicate_of": None, "text": "", "meta": {}, **row}
                known = row["defect"] is None or row["defect"] in DETECTORS
                if row["defect"] is not None:
                    row["text"] = row["text"][:_EXCERPT]  # the whole is needed of clean pages only
                found[row["url"]] = row
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}:{number}: not a row of truth (url, language, defect): {error!r}") from None
            if not known:
                raise DataError(f"{path}:{number}: unknown defect {row['defect']!r}; known: {', '.join(DETECTORS)}")
    return found


def _counts() -> Counts:
    return defaultdict(lambda: defaultdict(Counter))


@dataclass
class _Judge:
    """Counts pages of the truth, by defect and language."""

    truth: dict[str, Row]
    dropped: dict[str, Row] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    repaired: set[str] = field(default_factory=set)
    masked: set[str] = field(default_factory=set)
    defects: Counts = field(default_factory=_counts)
    forms: Counts = field(default_factory=_counts)
    bands: Counts = field(default_factory=_counts)
    stages: Counts = field(default_factory=_counts)
    clean: Counts = field(default_factory=_counts)  # "clean" and the names of decoys
    lost: dict[str, Row] = field(default_factory=dict)
    missed: dict[str, list[Row]] = field(default_factory=dict)
    arrived: list[float] = field(default_factory=list)  # of clean pages: words of the true text in the document,
    added: list[float] = field(default_factory=list)  # and words of the document that are not in the true text

    def __post_init__(self) -> None:
        self.group = {url: self._original(url) for url in self.truth}
        self._url_of: dict[str, str] = {}

    def _original(self, url: str) -> str:
        seen = {url}
        while (above := self.truth.get(url, {}).get("duplicate_of")) and above not in seen:
            seen.add(above)
            url = above
        return url

    def read_corpus(self, corpus: Path) -> None:
        for row in rows(corpus / "documents", ["id", "url", "text", "meta"]):
            true = self.truth.get(row["url"])
            if true is None:
                continue
            self._url_of[row["id"]] = row["url"]
            self.kept.add(row["url"])
            if "masked" in json.loads(row["meta"] or "{}"):
                self.masked.add(row["url"])
            traces = true["meta"].get("traces")
            if traces and all(row["text"].count(trace) <= most for trace, most in traces.items()):
                self.repaired.add(row["url"])
            if true["defect"] is None and true["text"]:
                wanted, there = Counter(true["text"].split()), Counter(row["text"].split())
                self.arrived.append((wanted & there).total() / max(1, wanted.total()))
                self.added.append((there - wanted).total() / max(1, there.total()))
        self.dropped = {row["url"]: row for row in rows(corpus / "ledger") if row["url"] in self.truth}

    def count(self, url: str) -> None:
        row, drop = self.truth[url], self.dropped.get(url)
        language = row["language"] if row["language"] in ("en", "zh") else "other"
        twin = drop is not None and drop["stage"] == "duplicates" and self._is_twin(url, drop["survivor"])
        self._accuse(row, language, drop, twin)
        if row["defect"] is None:
            lost = drop is not None and not twin
            self.clean[row["meta"].get("decoy", "clean")][language].update(planted=1, lost=lost)
            if drop is not None and lost:
                self._note(url, row, drop)
        else:
            self._defective(url, row, language, drop, twin)

    def _is_twin(self, url: str, survivor: str) -> bool:
        """Whether a page left for a page that the truth calls a copy of the same original."""
        return self.group.get(self._url_of.get(survivor, "")) == self.group[url]

    def _is_of_the_same_kind(self, row: Row, survivor: str) -> bool:
        """Whether both have the same defect: two notices "under construction" are alike, though nobody copied one."""
        other = self.truth.get(self._url_of.get(survivor, ""))
        return row["defect"] is not None and other is not None and other["defect"] == row["defect"]

    def _accuse(self, row: Row, language: str, drop: Row | None, twin: bool) -> None:
        """Counts for the stage that dropped or masked the page whether it was right, or took a clean one."""
        defect = row["defect"]
        if drop is not None:
            if drop["stage"] == "duplicates" and not twin and self._is_of_the_same_kind(row, drop["survivor"]):
                return
            right = twin if drop["stage"] == "duplicates" else detects(drop["stage"], drop["rule"], defect)
            taken = defect is None and not right
            self.stages[drop["stage"]][language].update(accused=1, right=right, clean=taken)
        elif row["url"] in self.masked:
            right = detects("personal", "mask", defect)
            self.stages["personal"][language].update(accused=1, right=right, clean=defect is None)

    def _defective(self, url: str, row: Row, language: str, drop: Row | None, twin: bool) -> None:
        defect, meta = row["defect"], row["meta"]
        found = url in self.repaired or (drop is not None and detects(drop["stage"], drop["rule"], defect))
        moot = False
        if defect in _COPIES:
            original = self.dropped.get(row["duplicate_of"])
            found = twin or (original is not None and original["stage"] == "duplicates" and drop is None)
            moot = not found and (drop is not None or original is not None)
        counted = {"planted": 1, "found": found, "removed": found or drop is not None, "moot": moot}
        self.defects[defect][language].update(counted)
        self.stages[stage_of(defect)][language].update(counted)
        if "form" in meta:
            self.forms[f"{defect}: {meta['form']}"][language].update(counted)
        if "jaccard" in meta:
            low = int(meta["jaccard"] * 20) / 20
            self.bands[f"{low:.2f} to {low + 0.05:.2f}"][language].update(counted)
        if not found and not moot:
            examples = self.missed.setdefault(defect, [])
            if sum(e["language"] == language for e in examples) < _EXAMPLES:
                became = f"{drop['stage']}.{drop['rule']}" if drop else "kept"
                shown = {key: value for key, value in meta.items() if key in ("form", "jaccard")}
                examples.append({"url": url, "language": language, **shown, "became": became, "excerpt": row["text"]})

    def _note(self, url: str, row: Row, drop: Row) -> None:
        entry = self.lost.setdefault(f"{drop['stage']}.{drop['rule']}", {"count": 0, "examples": []})
        entry["count"] += 1
        if len(entry["examples"]) < _EXAMPLES:
            kind = row["meta"].get("decoy") or row.get("kind")
            shown = {"url": url, "kind": kind, "language": row["language"], "value": drop["value"]}
            entry["examples"].append({**shown, "excerpt": drop["excerpt"]})


def _order(counts: Counts) -> Counts:
    """Defects in the order of the table."""
    return {name: counts[name] for name in DETECTORS if name in counts}


def _table(counts: Counts) -> dict[str, dict[str, Any]]:
    return {
        name: {language: _rates(one) for language, one in sorted(languages.items())}
        for name, languages in counts.items()
    }


def _rates(counts: Counter[str]) -> dict[str, Any]:
    result: dict[str, Any] = {key: int(value) for key, value in sorted(counts.items())}
    if "lost" in counts:
        result["false_positive_rate"] = _share(counts["lost"], counts["planted"])
        return result
    result["recall"] = _share(counts["found"], counts["planted"] - counts["moot"])
    result["removed_rate"] = _share(counts["removed"], counts["planted"])
    result["precision"] = _share(counts["right"], counts["accused"])
    return result


def _mean(shares: list[float]) -> float | None:
    return round(sum(shares) / len(shares), 4) if shares else None


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _total(tables: Iterable[dict[str, Counter[str]]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for languages in tables:
        for counts in languages.values():
            total.update(counts)
    return total


def _summary(defects: Counts, judge: _Judge) -> dict[str, Any]:
    """Of all languages together, the few numbers that a manifest keeps."""
    keys = ("planted", "recall", "removed_rate", "precision", "lost", "false_positive_rate")
    totals = {name: _total([languages]) for name, languages in defects.items()}
    if "clean" in judge.clean:
        totals["clean"] = _total([judge.clean["clean"]])
    decoys = [counts for name, counts in judge.clean.items() if name != "clean"]
    if decoys:
        totals["decoys"] = _total(decoys)
    summary = {}
    for name, counts in totals.items():
        rates = _rates(counts)
        summary[name] = {key: rates[key] for key in keys if key in rates}
    return summary

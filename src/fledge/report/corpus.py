"""The page of one corpus: what stayed and what left, what each rule does, and what other thresholds would do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from fledge.corpus.chain import ChainConfig
from fledge.corpus.replay import Replay, ordered
from fledge.corpus.tables import rows
from fledge.report import charts
from fledge.report.collect import read_object
from fledge.report.run import write_page

_EXAMPLES = 6  # of kept pages, by language
_DOMAINS = 15
_LANGUAGES = 12
_MATRIX = 16  # rules in the overlap matrix: those that take most
_HISTOGRAMS = 24
_SIZES = ((1, "1"), (2, "2"), (3, "3-4"), (5, "5-9"), (10, "10-99"), (100, "100 and more"))  # of clusters


def write_corpus_report(corpus: Path, as_made: Replay, asked: Replay, config: ChainConfig, out: Path) -> Path:
    """``asked``: what the thresholds of ``config`` do; where it is not ``as_made`` itself, the page shows both."""
    values = {
        "name": corpus.name, "funnel": read_object(corpus / "funnel.json"), "other": asked is not as_made,
        "changed": asked.changed, "languages": _languages(as_made, asked), "rules": _rules(as_made, asked),
        "unmeasured": {name: n for name, n in asked.unmeasured.items() if n and n < asked.pages[name.split(".")[0]]},
        "matrix": _matrix(asked), "histograms": _histograms(asked, config), "clusters": _clusters(corpus),
        "domains": _domains(corpus), "kept": _kept(corpus), "truth": read_object(corpus / "truth.json"),
    }  # fmt: skip
    return write_page(out, "corpus.html", values)


def _languages(as_made: Replay, asked: Replay) -> list[dict[str, Any]]:
    order = sorted(as_made.pages, key=lambda la: (-as_made.pages[la], la))
    groups = [(la or "unknown", [la]) for la in order[:_LANGUAGES]]
    if order[_LANGUAGES:]:
        groups.append((f"{len(order) - _LANGUAGES} others", order[_LANGUAGES:]))
    counts = {"pages": as_made.pages, "made": as_made.kept, "asked": asked.kept}
    return [{"name": n, **{key: sum(c[la] for la in some) for key, c in counts.items()}} for n, some in groups]


def _rules(as_made: Replay, asked: Replay) -> list[dict[str, Any]]:
    found = []
    before = dict(ordered(as_made))
    after = dict(ordered(asked))
    for name in sorted({*before, *after}, key=lambda n: -max(e[n].alone if n in e else 0 for e in (before, after))):
        by_language = asked.effects.get(name, {})
        found.append(
            {
                "name": name, "was": before[name].alone if name in before else 0, "effect": asked.total(name),
                "languages": {la: e.alone for la, e in sorted(by_language.items(), key=lambda i: -i[1].alone)},
                "samples": {la: e.samples for la, e in by_language.items() if e.samples},
            }
        )  # fmt: skip
    return found


def _matrix(asked: Replay) -> dict[str, Any]:
    """Of the pages that the rule of a row refuses, the share that the rule of a column refuses as well."""
    names = [name for name, _ in ordered(asked)][:_MATRIX]
    cells = [[asked.overlap[a][b] / asked.overlap[a][a] for b in names] for a in names]
    return {"names": names, "rows": list(zip(names, cells, strict=True))}


def _histograms(asked: Replay, config: ChainConfig) -> list[dict[str, Any]]:
    from markupsafe import Markup

    found: list[tuple[int, dict[str, Any]]] = []
    for language, columns in sorted(asked.values.items()):
        for name, limits in config.rules.table(language).items():
            values = columns.get(f"rules.{name}", np.empty(0))
            effect = asked.effects.get(f"rules.{name}", {}).get(language)
            if effect is None or len(values) < 2:
                continue
            thresholds = [limit for limit in (limits.min, limits.max) if limit is not None]
            svg = Markup(charts.histogram(values, f"{language}-{name}", thresholds))
            title = f"{language}: {name.replace('_', ' ')}"
            found.append((effect.alone, {"title": title, "svg": svg, "taken": effect.alone, "limits": thresholds}))
    found.sort(key=lambda item: (-item[0], item[1]["title"]))
    lengths: list[dict[str, Any]] = [
        {"title": f"{la}: characters, as powers of ten", "taken": None, "limits": [],
         "svg": Markup(charts.histogram(np.log10(np.maximum(columns["text.characters"], 1)), f"length-{la}"))}
        for la, columns in sorted(asked.values.items()) if len(columns.get("text.characters", ())) > 20
    ]  # fmt: skip
    return [chart for _, chart in found[:_HISTOGRAMS]] + lengths


def _clusters(corpus: Path) -> list[tuple[str, int]]:
    """How many documents stand for how many copies of themselves."""
    copies: Counter[str] = Counter()
    for row in rows(corpus / "ledger", ["stage", "survivor"]):
        if row["stage"] == "duplicates":
            copies[row["survivor"]] += 1
    sizes: Counter[str] = Counter()
    for count in copies.values():
        sizes[next(label for least, label in reversed(_SIZES) if count + 1 >= least)] += 1
    return [(label, sizes[label]) for _, label in _SIZES if sizes[label]]


def _domains(corpus: Path) -> list[dict[str, Any]]:
    """Hosts with most pages: kept, and left."""
    kept = Counter(_host(row["url"]) for row in rows(corpus / "documents", ["url"]))
    gone = Counter(_host(row["url"]) for row in rows(corpus / "ledger", ["url"]))
    total = kept + gone
    names = sorted((name for name in total if name), key=lambda name: (-total[name], name))[:_DOMAINS]
    return [{"name": name, "kept": kept[name], "gone": gone[name]} for name in names]


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # an address that is none
        return ""


def _kept(corpus: Path) -> dict[str, list[dict[str, Any]]]:
    """Documents of each language, from all over the corpus: those whose ids come first."""
    from fledge.corpus.pages import excerpt_of

    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows(corpus / "documents", ["id", "url", "language", "text"]):
        some = found.setdefault(row["language"], [])
        some.append({"id": row["id"], "url": row["url"], "excerpt": excerpt_of(row["text"])})
        if len(some) > 4 * _EXAMPLES:
            some.sort(key=lambda item: item["id"])
            del some[_EXAMPLES:]
    return {la: sorted(some, key=lambda item: item["id"])[:_EXAMPLES] for la, some in sorted(found.items())}

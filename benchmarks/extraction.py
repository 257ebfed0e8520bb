"""How well and how fast the main text of real pages is found: resiliparse as we use it, resiliparse as it comes, and
trafilatura.

    python benchmarks/extraction.py [--data ../shared/data] [--rounds 3]

Quality: the article extraction benchmark of Scrapinghub (181 pages of news and blogs with their text by hand; MIT),
in `DATA/html/article_extraction`. As the benchmark measures: runs of four words, counted; true and false positives
and false negatives divided by their sum, page by page, so that long pages weigh no more; precision and recall are
means over pages, F1 is that of the two means; 95% intervals from 1,000 samples of the pages.

Speed: one process, from bytes to text (encoding, parsing, extraction, tidying), on the same 181 pages, on pages of
two real crawls (`DATA/html/warc_dolma_sample`), and on one page in the middle of the sizes of a crawl. In seconds of
this process on a core, not of the clock, so that the neighbours on a machine count less; medians of the rounds.
trafilatura is measured here in the same process, without the child that it is used in (which adds a copy of the page
through a pipe). Writes benchmarks/results/extraction.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fledge.core.artefact import hardware, versions
from fledge.corpus.extraction.extract import ExtractConfig, Extractor, tidy
from fledge.corpus.pages import Found
from fledge.corpus.reading.inputs import ReadConfig, discover
from fledge.corpus.reading.read import read_part

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "extraction.json"
_WORD = re.compile(r"\w+")
_RUN = 4
Row = dict[str, Any]
Extract = Callable[[Found], str]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("FLEDGE_DATA") or ROOT.parent / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    folder = arguments.data / "html"
    gold = json.loads((folder / "article_extraction" / "ground-truth.json").read_text(encoding="utf-8"))
    articles = {
        name: Found(name, 0, "html", gzip.decompress((folder / f"article_extraction/html/{name}.html.gz").read_bytes()))
        for name in gold
    }
    crawled = crawl(folder / "warc_dolma_sample")
    sets = {"articles": list(articles.values()), "crawl": crawled, "middle page": [middle(crawled)]}
    rows, missing = [], {}
    for name, make in extractors().items():
        if isinstance(make, str):
            missing[name] = make
            continue
        row = {"extractor": name, **quality(gold, {key: make(page) for key, page in articles.items()})}
        row["speed"] = {label: speed(make, pages, arguments.rounds) for label, pages in sets.items()}
        rows.append(row)
        print(json.dumps(row), flush=True)
    facts = {"machine": hardware(), "versions": library_versions(), "rounds": arguments.rounds}
    RESULTS.write_text(json.dumps({**facts, "rows": rows, "missing": missing}, indent=1) + "\n", encoding="utf-8")


def extractors() -> dict[str, Extract | str]:
    """By name: a function, or why there is none."""
    ours = Extractor(ExtractConfig(large_bytes=1 << 30))
    found: dict[str, Extract | str] = {"resiliparse, our lists": lambda page: ours(page)[0].text}
    found["resiliparse as it comes"] = plain
    found["trafilatura"] = "not installed: pip install 'fledge[careful]'"
    if find_spec("trafilatura"):
        found["trafilatura"] = careful
    return found


def plain(page: Found) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    from fledge.corpus.reading.charset import decode

    assert isinstance(page.content, bytes)
    return extract_plain_text(decode(page.content, page.charset, html=True)[0] or "", main_content=True)


def careful(page: Found) -> str:
    from fledge.corpus.extraction.main_text import careful_text
    from fledge.corpus.reading.charset import decode

    assert isinstance(page.content, bytes)
    return tidy(careful_text(decode(page.content, page.charset, html=True)[0] or "")[0])[0]


def crawl(folder: Path) -> list[Found]:
    parts = [part for shard in discover([str(folder)], 1).shards for part in shard.parts]
    return [item for part in parts for item in read_part(part, ReadConfig()) if isinstance(item, Found)]


def middle(pages: list[Found]) -> Found:
    return sorted(pages, key=lambda page: len(page.content))[len(pages) // 2]


def speed(extract: Extract, pages: list[Found], rounds: int) -> Row:
    """Pages and megabytes of HTML a second; a set is read as often as half a second takes."""
    found = []
    extract(pages[0])
    for _ in range(rounds):
        started, count = time.process_time(), 0
        while time.process_time() - started < 0.5:
            for page in pages:
                extract(page)
            count += 1
        found.append(count * len(pages) / (time.process_time() - started))
    sizes = [len(page.content) for page in pages]
    return {
        "pages": len(pages), "median_bytes": int(statistics.median(sizes)),
        "pages_per_second": round(statistics.median(found), 1),
        "megabytes_per_second": round(statistics.median(found) * statistics.mean(sizes) / 1e6, 2),
        "rounds": [round(value, 1) for value in found],
    }  # fmt: skip


def quality(gold: dict[str, Any], texts: dict[str, str]) -> Row:
    """Precision, recall and F1 with the half widths of their 95% intervals."""
    shares = np.array([shared_runs(gold[name].get("articleBody", ""), texts[name]) for name in gold])
    generator = np.random.default_rng(0)
    samples = [scores(shares[generator.integers(0, len(shares), len(shares))]) for _ in range(1000)]
    spread = 1.96 * np.std(samples, axis=0, ddof=1)
    names = ("precision", "recall", "f1")
    values = {name: round(float(value), 4) for name, value in zip(names, scores(shares), strict=True)}
    return values | {f"{name}_interval": round(float(width), 4) for name, width in zip(names, spread, strict=True)}


def scores(shares: np.ndarray) -> tuple[float, float, float]:
    """(pages, 3) shares of true positives, false positives, false negatives -> precision, recall, F1."""
    true, extra, missed = shares.T
    told, wanted = true + extra > 0, true + missed > 0
    precision = float((true[told] / (true + extra)[told]).mean())
    recall = float((true[wanted] / (true + missed)[wanted]).mean())
    return precision, recall, 2 * precision * recall / (precision + recall)


def shared_runs(gold: str, text: str) -> tuple[float, float, float]:
    """Shares of runs of words: in both, in the text only, in the gold text only."""
    wanted, told = runs(gold), runs(text)
    common = (wanted & told).total()
    counts = common, told.total() - common, wanted.total() - common
    whole = sum(counts)
    return tuple(count / whole for count in counts) if whole else (0.0, 0.0, 0.0)  # type: ignore[return-value]


def runs(text: str) -> Counter[tuple[str, ...]]:
    """Runs of four words; of a shorter text, the one run that it is."""
    words = _WORD.findall(text)
    places = range(max(1, len(words) - _RUN + 1))
    return Counter(run for place in places if (run := tuple(words[place : place + _RUN])))


def library_versions() -> dict[str, str]:
    from importlib.metadata import version

    known = versions()
    return known | ({"trafilatura": version("trafilatura")} if find_spec("trafilatura") else {})


if __name__ == "__main__":
    main()

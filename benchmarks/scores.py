"""Scores of pages: what patterns and lists find in clean real text, and how many documents a second each score takes.

    FLEDGE_DATA=DIR python benchmarks/scores.py [--only speed] [--show 3]

One core (run it alone). Clean text is what nobody would want dropped: encyclopedia, treebanks, novels, classical
Chinese, school problems, the interpreter's documentation. A document of the speed table has 3,400 bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from fledge.core.config import build
from fledge.corpus.judging.personal import find_personal
from fledge.corpus.judging.toxic import ToxicConfig, Toxicity

BYTES = 3400


def read(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def one(folder: Path, pattern: str) -> str:
    return read(next(iter(sorted(folder.glob(pattern)))))


def pieces(text: str, size: int = BYTES) -> list[str]:
    """Cut at line ends into pieces of at least ``size`` characters."""
    result, held = [], ""
    for line in re.split(r"\n+", text):
        held += line + "\n"
        if len(held) >= size:
            result.append(held)
            held = ""
    return [*result, held] if held.strip() else result


def poems(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        lines = value.get("paragraphs")
        if isinstance(lines, list) and lines and isinstance(lines[0], str):
            yield "\n".join(lines)
        else:
            yield from poems(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from poems(item)


def clean(data: Path) -> Iterator[tuple[str, list[str]]]:
    """(name, texts) of every clean corpus."""
    text = data / "text"
    articles = [re.split(r"\n(?= = [^=].* = \n)", one(text / "wikitext2", f"{part}*")) for part in ("valid", "test")]
    yield "WikiText-2 articles", [article for part in articles for article in part if article.strip()]
    for name in ("ud_en_ewt", "ud_zh_gsdsimp"):
        files = sorted((text / name).glob("*.conllu*"))
        yield name, [line for file in files for line in re.findall(r"^# text = (.*)$", read(file), re.MULTILINE)]
    for name in ("gutenberg_moby_dick", "gutenberg_pride_and_prejudice", "tinyshakespeare", "tinystories_sample"):
        yield name, pieces(one(text / name, "*.txt*"))
    files = sorted((text / "chinese_classics").rglob("*.json*"))
    yield "chinese_classics", [poem for file in files for poem in poems(json.loads(read(file)))]
    files = sorted((data / "eval/gsm8k").glob("*.jsonl*"))
    rows = [json.loads(row) for file in files for row in read(file).splitlines()]
    yield "gsm8k", [f"{row['question']}\n{row['answer']}" for row in rows]
    gold = json.loads((data / "html/article_extraction/ground-truth.json").read_text(encoding="utf-8"))
    yield "news articles", [gold[key]["articleBody"] for key in sorted(gold)]
    yield "C4 sample", [json.loads(row)["text"] for row in one(text / "c4_wiki_demo", "c4*").splitlines()]
    from fledge.corpus.pages import Found
    from fledge.corpus.reading.stdlib import read_stdlib, stdlib_files

    items = [item for name, path in stdlib_files(3_000_000) for item in read_stdlib(name, path)]
    found = [item for item in items if isinstance(item, Found)]
    yield "stdlib docs", [str(item.content) for item in found if item.kind != "code"]
    yield "stdlib code", [str(item.content) for item in found if item.kind == "code"]


def false_positives(data: Path, show: int) -> None:
    toxicity = Toxicity(ToxicConfig())
    for name, texts in clean(data):
        findings = [find_personal(text) for text in texts]
        kinds = Counter(item.kind for found in findings for item in found)
        values = toxicity.score(texts, [""] * len(texts))
        pairs = zip(values["density"].tolist(), values["weight"].tolist(), strict=True)
        rude = [text for text, (density, weight) in zip(texts, pairs, strict=True) if toxicity.broken(density, weight)]
        pages = sum(map(bool, findings))
        print(f"{name}: {len(texts)} texts; personal data on {pages} {dict(sorted(kinds.items()))}; abuse {len(rude)}")
        shown = [(text, item) for text, found in zip(texts, findings, strict=True) for item in found[:1]][:show]
        for text, item in shown:
            print(f"    {item.kind}: {text[max(0, item.start - 40) : item.end + 20]!r}")
        for text in rude[:show]:
            print(f"    abuse: {text[:120]!r}")


def speed(data: Path) -> None:
    from fledge.corpus.scoring.ngram import NgramModel
    from fledge.corpus.scoring.quality import Classifier
    from fledge.stages import classifier, ngram

    english = pieces(one(data / "text/gutenberg_moby_dick", "*.txt*"))[:300]
    files = sorted((data / "text/chinese_classics").rglob("*.json*"))
    chinese = pieces("\n".join(p for file in files[:20] for p in poems(json.loads(read(file)))), BYTES // 3)[:300]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, texts in (("en", english), ("zh", chinese)):
            rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
            (folder / f"{label}.jsonl").write_text(rows, encoding="utf-8")
        paths = {label: (str(folder / f"{label}.jsonl"),) for label in ("en", "zh")}
        classifier.run(build(classifier.Config, {"labels": paths}), folder / "classifier")
        ngram.run(build(ngram.Config, {"data": paths["en"]}), folder / "n-en")
        ngram.run(build(ngram.Config, {"data": paths["zh"], "units": {"kind": "characters"}}), folder / "n-zh")
        model = Classifier.load(folder / "classifier")
        for language, texts in (("en", english), ("zh", chinese)):
            words = NgramModel.load(folder / f"n-{language}")
            print(f"{language}: {sum(len(text.encode()) for text in texts) / len(texts):.0f} bytes a document")
            rate("  classifier", texts, lambda some: model.scores(some, [language] * len(some)))  # noqa: B023
            rate(f"  n-gram model, {words.units.config.kind}, order {words.order}", texts, words.bits)
            rate("  personal data", texts, lambda some: [find_personal(text) for text in some])
            rate("  list of insults", texts, lambda some: Toxicity(ToxicConfig()).score(some, [""] * len(some)))


def rate(name: str, texts: Sequence[str], work: Callable[[Sequence[str]], Any]) -> None:
    """Median of five, in processor time of this process."""
    work(texts[:8])
    seconds = []
    for _ in range(5):
        began = time.process_time()
        work(texts)
        seconds.append(time.process_time() - began)
    print(f"{name}: {len(texts) / statistics.median(seconds):,.0f} documents/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("false_positives", "speed"))
    parser.add_argument("--show", type=int, default=0, help="how many findings of each corpus are printed")
    arguments = parser.parse_args()
    data = Path(os.environ.get("FLEDGE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if arguments.only != "speed":
        false_positives(data, arguments.show)
    if arguments.only != "false_positives":
        speed(data)


if __name__ == "__main__":
    main()

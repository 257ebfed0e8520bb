"""What the rules would wrongly drop: texts that people edited, through the default chain and the published rule sets.

    python benchmarks/clean_texts.py [--data ../shared/data] [--most 2000] [--show 0]

Classics (poems, ci, Four Books, primers), encyclopedia, stories, novels, news and mail: nothing of it should leave.
Three judgements of every text: the default chain without the global step, so that copies stay (poems are told twice);
each published set of limits alone, with the language given; and for treebanks of other languages whether the chain
tells the language, where it is one that stays. Writes results/clean_texts.json and the tables of docs/clean-texts.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pair import HERE, RESULTS, machine
from write_docs import fill

from fledge.core.artefact import code_version, versions, write_json
from fledge.corpus.chain import Chain, ChainConfig
from fledge.corpus.judging import rules
from fledge.corpus.judging.measures import Measures
from fledge.corpus.judging.rules import RulesConfig
from fledge.corpus.pages import Drop, Found
from fledge.corpus.reading.inputs import Part, ReadConfig
from fledge.corpus.reading.read import read_part

DOCS = HERE.parent / "docs" / "clean-texts.md"
PUBLISHED: dict[str, tuple[tuple[str, ...], ...]] = {
    "en": (("gopher",), ("gopher", "c4", "fineweb"), ("map_neo",)),
    "zh": (("fineweb2",), ("ct_llm",)),
}
TOGETHER = 256  # texts that are measured together
SENTENCES = 10  # of a treebank without documents, that make a text
OTHERS = ("de", "es", "fr", "pt", "ru", "tr", "vi", "ar", "hi", "th", "ko")
Row = dict[str, Any]


@dataclass(frozen=True)
class Set:
    """Texts of one kind, read by ``read`` from ``files`` (globs below the data)."""

    name: str
    language: str
    read: Callable[[Path], Iterator[str]]
    files: tuple[str, ...]


# ---- reading ---------------------------------------------------------------------------------------------------------


def whole(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def as_corpus(path: Path) -> Iterator[str]:
    """As `fledge corpus` reads the file, with the headings of poems and the keys of all the classics."""
    config = ReadConfig(
        heading_keys=("title", "rhythmic", "chapter", "author"), text_keys=("text", "content", "paragraphs")
    )
    name = path.name.removesuffix(".gz")
    kind = {"json": "json", "jsonl": "jsonl", "txt": "text"}[name.rpartition(".")[2]]
    for item in read_part(Part(name, path, kind), config):
        if isinstance(item, Found) and isinstance(item.content, str):
            yield item.content


def articles(path: Path) -> Iterator[str]:
    """WikiText: an article begins with a heading of the first level."""
    yield from (part.strip() for part in re.split(r"\n(?= = [^=].*[^=] = \n)", whole(path)) if part.strip())


def stories(path: Path) -> Iterator[str]:
    yield from (part.strip() for part in whole(path).split("<|endoftext|>") if part.strip())


def lines(path: Path) -> Iterator[str]:
    yield from (line for line in whole(path).splitlines() if line.strip())


def contexts(path: Path) -> Iterator[str]:
    """CMRC 2018: the paragraphs that are asked about."""
    for article in json.loads(whole(path))["data"]:
        yield from (paragraph["context"] for paragraph in article["paragraphs"])


def treebank(path: Path) -> Iterator[str]:
    """CoNLL-U: documents where the file marks them, else so many sentences in a row; paragraphs are lines."""
    text = whole(path)
    marked = "# newdoc" in text
    gap = "" if ("/ud_zh" in path.as_posix() or "/ud_th" in path.as_posix()) else " "
    document: list[str] = []
    sentences = 0
    for line in text.splitlines():
        if marked and line.startswith("# newdoc") and document:
            yield gap.join(document).replace(f"{gap}\n{gap}", "\n").strip()
            document = []
        elif line.startswith("# newpar") and document:
            document.append("\n")
        elif line.startswith("# text = "):
            document.append(line[9:].strip())
            sentences += 1
            if not marked and sentences % SENTENCES == 0:
                yield gap.join(document)
                document = []
    if document:
        yield gap.join(document).replace(f"{gap}\n{gap}", "\n").strip()


_CLASSICS = "text/chinese_classics"
SETS = (
    Set("WikiText-2, articles", "en", articles, ("text/wikitext2/*.gz",)),
    Set("Wikipedia, articles", "en", lines, ("text/c4_wiki_demo/wiki_demo.txt.gz",)),
    Set("UD English-EWT, documents", "en", treebank, ("text/ud_en_ewt/*.gz",)),
    Set("TinyStories", "en", stories, ("text/tinystories_sample/*.gz",)),
    Set("Moby-Dick, Pride and Prejudice", "en", as_corpus, ("text/gutenberg_*/*-0.txt*",)),
    Set("CMRC 2018, paragraphs of Wikipedia", "zh", contexts, ("eval/cmrc2018/*.json*",)),
    Set("UD Chinese-GSD, ten sentences", "zh", treebank, ("text/ud_zh_gsdsimp/*.gz",)),
    Set("Tang poems", "zh", as_corpus, (f"{_CLASSICS}/tang/*.json",)),
    Set("Song ci", "zh", as_corpus, (f"{_CLASSICS}/songci/*.json",)),
    Set("Shijing, Chuci", "zh", as_corpus, (f"{_CLASSICS}/shijing.json", f"{_CLASSICS}/chuci.json")),
    Set("Analects, Four Books", "zh", as_corpus, (f"{_CLASSICS}/lunyu.json", f"{_CLASSICS}/sishu/*.json")),
    Set("primers, Guwen Guanzhi, Youmengying", "zh", as_corpus,
        (f"{_CLASSICS}/mengxue/*.json", f"{_CLASSICS}/youmengying.json")),
)  # fmt: skip


def read(one: Set, data: Path, most: int) -> list[str]:
    """At most so many texts of a set, drawn with a fixed seed."""
    paths = [path for files in one.files for path in sorted(data.glob(files))]
    texts = [text for path in paths for text in one.read(path)]
    order = np.random.default_rng(0).permutation(len(texts))[:most]
    return [texts[place] for place in sorted(order)]


# ---- judging ---------------------------------------------------------------------------------------------------------


def by_chain(texts: Sequence[str], chain: Chain, show: int) -> Row:
    """What the chain drops, by the step that refuses it first, with examples."""
    found = [Found("clean", number, "text", text) for number, text in enumerate(texts)]
    lost, examples = Counter[str](), list[Row]()
    for begin in range(0, len(found), TOGETHER):
        for result in chain.judge(found[begin : begin + TOGETHER]):
            if isinstance(result, Drop):
                lost[f"{result.stage}.{result.rule}"] += 1
                if sum(e["rule"] == f"{result.stage}.{result.rule}" for e in examples) < show:
                    examples.append({"rule": f"{result.stage}.{result.rule}", "value": round(result.value, 4),
                                     "threshold": result.threshold, "excerpt": result.excerpt})  # fmt: skip
    return {"lost": lost.total(), "by": dict(lost.most_common()), "examples": examples}


def by_set(texts: Sequence[str], language: str, sets: tuple[str, ...]) -> Row:
    """What a set of limits drops. ``by``: every rule that a text breaks, whether or not another takes it as well."""
    config = RulesConfig(sets={language: sets})
    limits = config.table(language)
    lost, by = 0, Counter[str]()
    for begin in range(0, len(texts), TOGETHER):
        part = texts[begin : begin + TOGETHER]
        values = rules.measure(Measures(part, language), config)
        lost += sum(broken is not None for broken in rules.judge(values, limits, len(part)))
        for name, one in limits.items():
            alone = rules.judge({name: values[name]}, {name: one}, len(part))
            by[name] += sum(broken is not None for broken in alone)
    return {"lost": lost, "by": {name: count for name, count in by.most_common() if count}}


def measure(arguments: argparse.Namespace) -> Row:
    chain = Chain(ChainConfig())
    found: list[Row] = []
    for one in SETS:
        texts = read(one, arguments.data, arguments.most)
        if not texts:
            raise SystemExit(f"{arguments.data}: no texts of {one.name!r} ({', '.join(one.files)}); see --data")
        judged = by_chain(texts, chain, arguments.show)
        found.append({
            "set": one.name, "language": one.language, "texts": len(texts), "characters": sum(map(len, texts)),
            "chain": judged,
            "sets": {"+".join(sets): by_set(texts, one.language, sets) for sets in PUBLISHED[one.language]},
        })  # fmt: skip
        print(f"{one.name}: {judged['lost']} of {len(texts)} {judged['by']}", flush=True)
    others = []
    for language in OTHERS:
        texts = read(Set(language, language, treebank, (f"text/ud_{language}_*/*",)), arguments.data, arguments.most)
        told = Chain(ChainConfig.model_validate({"languages": {"keep": (language,), "minimum": {}}}))
        others.append({"language": language, "texts": len(texts), "chain": by_chain(texts, told, arguments.show)})
    return {"machine": machine(), "versions": versions(), "code": code_version(), "sets": found, "others": others}


# ---- what is shown ---------------------------------------------------------------------------------------------------


def table(head: list[str], body: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *body))


def share(lost: int, texts: int) -> str:
    return f"{100 * lost / texts:.1f}"


def named(by: dict[str, int], texts: int, most: int = 5) -> str:
    return ", ".join(f"{name} {share(count, texts)}" for name, count in list(by.items())[:most]) or "none"


def of_language(found: Row, language: str) -> str:
    names = ["+".join(sets) for sets in PUBLISHED[language]]
    body = []
    for row in found["sets"]:
        if row["language"] == language:
            losses = [row["chain"], *(row["sets"][name] for name in names)]
            body.append([row["set"], f"{row['texts']:,}", f"{row['characters'] // row['texts']:,}",
                         *(share(loss["lost"], row["texts"]) for loss in losses)])  # fmt: skip
    sets = (name.replace("+", ", ") for name in names)
    return table(["texts", "number", "mean characters", "default chain", *sets], body)


def reasons(found: Row) -> str:
    lines = []
    for row in found["sets"]:
        judged = {"default chain": row["chain"], **row["sets"]}
        for number, (name, one) in enumerate(judged.items()):
            cells = (row["set"] if not number else "", name.replace("+", ", "), named(one["by"], row["texts"]))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(["| texts | judged by | % of the texts |", "|---|---|---|", *lines])


def other_languages(found: Row) -> str:
    body = [[row["language"], f"{row['texts']:,}", share(row["chain"]["lost"], row["texts"]),
             named(row["chain"]["by"], row["texts"])] for row in found["others"]]  # fmt: skip
    return table(["language", "texts", "lost, %", "of them"], body)


def write_page(found: Row) -> None:
    text = DOCS.read_text(encoding="utf-8")
    parts = {"english": of_language(found, "en"), "chinese": of_language(found, "zh"), "reasons": reasons(found),
             "others": other_languages(found)}  # fmt: skip
    for name, part in parts.items():
        text = fill(text, name, part)
    DOCS.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    data = os.environ.get("FLEDGE_DATA") or HERE.parents[1] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--most", type=int, default=2000, help="texts of a set")
    parser.add_argument("--show", type=int, default=0, help="examples of what each rule takes, in the JSON file")
    parser.add_argument("--results", type=Path, help="write only this JSON file, and leave the docs as they are")
    arguments = parser.parse_args()
    found = measure(arguments)
    write_json(arguments.results or RESULTS / "clean_texts.json", found)
    if arguments.results is None:
        write_page(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())

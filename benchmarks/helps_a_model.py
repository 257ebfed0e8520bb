"""Does a cleaner corpus make a better model? One crawl, four corpora of it, the same model on the same tokens.

    python benchmarks/helps_a_model.py [--out .work/helps] [--seeds 0 1] [--tokens 1000000]

The crawl is the microworld's preset `dirty`. Its pages are extracted once; a few hundred clean ones are held out; of
the rest are made: `raw` (all), `deduplicated` (nothing but copies removed), `cleaned` (the default chain), `relaxed`
(the default chain with limits half as strict). The tokenizer is made from the cleaned corpus and serves all. Every
model sees as many tokens; a corpus that has fewer is repeated. Measured without fine-tuning: bits per byte of the
held-out pages, and the test items as plain text. Writes results/helps_a_model.json, docs/helps-a-model.svg and the
tables of docs/helps-a-model.md. Stopped and started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pair import HERE, RESULTS, WORK, machine
from write_docs import fill

from fledge.core.artefact import code_version, read_manifest, versions, write_json
from fledge.core.config import build
from fledge.core.machine import set_switches
from fledge.core.readers import write_jsonl
from fledge.core.records import Document
from fledge.corpus.chain import ChainConfig
from fledge.corpus.tables import rows
from fledge.evaluate import stage as evaluation
from fledge.evaluate.compare import read_scores
from fledge.microworld import generate as microworld
from fledge.stages import corpus, pretrain, shards, tokenizer

CORPORA = ("raw", "deduplicated", "cleaned", "relaxed")
LANGUAGES = ("en", "zh")
HELD_OUT = 150  # clean pages of each language that no copy was made of
ITEMS, OTHERS = 300, 20  # test items of a language: of facts, and of every other skill
FACTS = "recall"
# 1.25 million parameters with 4,096 ids; everything else is what the size `fledgling` recommends.
SHAPE = {
    "hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "intermediate_size": 344,
}  # fmt: skip
DOCS = HERE.parent / "docs" / "helps-a-model.md"
Row = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=WORK / "helps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--tokens", type=int, default=1_000_000, help="that each model is trained on")
    parser.add_argument("--pages", type=int, default=microworld.presets["dirty"].pages, help="clean pages of the crawl")
    parser.add_argument("--results", type=Path, help="write only this JSON file, and leave the docs as they are")
    arguments = parser.parse_args()
    set_switches()
    out: Path = arguments.out
    make_crawl(out, arguments.pages)
    make_corpora(out)
    runs = [train(out, name, seed, arguments.tokens) for seed in arguments.seeds for name in CORPORA]
    found = {
        "machine": machine(), "versions": versions(), "code": code_version(),
        "settings": {"tokens": arguments.tokens, "seeds": arguments.seeds, "pages": arguments.pages, "shape": SHAPE,
                     "threads": os.environ.get("OMP_NUM_THREADS", "")},
        "crawl": crawl_facts(out), "corpora": {name: corpus_facts(out, name) for name in CORPORA}, "runs": runs,
    }  # fmt: skip
    write_json(arguments.results or RESULTS / "helps_a_model.json", found)
    print(results_table(found))
    if arguments.results is None:
        write_page(found)
    return 0


# ---- one crawl, four corpora -----------------------------------------------------------------------------------------


def make_crawl(out: Path, pages: int) -> None:
    """``world/``; ``raw.jsonl``, every page as extracted; ``held_out.jsonl``, clean pages that are in no corpus."""
    config = microworld.presets["dirty"].model_copy(update={"pages": pages, "tests_per_skill": ITEMS})
    microworld.run(config, out / "world")
    if (out / "raw.jsonl").exists():
        return
    truth = read_truth(out)
    held_out = choose_held_out(truth)
    documents = list(extracted(out / "world" / "site"))
    kept_apart = [Document(text=d.text, source=d.source, language=truth[d.source]["language"])
                  for d in documents if d.source in held_out]  # fmt: skip
    write_jsonl(out / "held_out.jsonl", kept_apart)
    write_jsonl(out / "raw.jsonl", [d for d in documents if d.source not in held_out])  # last: it says that all is done


def read_truth(out: Path) -> dict[str, Row]:
    with (out / "world" / "truth.jsonl").open(encoding="utf-8") as file:
        return {row["url"]: row for row in map(json.loads, file)}


def choose_held_out(truth: dict[str, Row]) -> set[str]:
    copied = {row["duplicate_of"] for row in truth.values()}
    chosen: set[str] = set()
    for language in LANGUAGES:
        able = sorted(url for url, row in truth.items()
                      if row["defect"] is None and row["language"] == language and url not in copied)  # fmt: skip
        order = np.random.default_rng(0).permutation(len(able))[:HELD_OUT]
        chosen |= {able[place] for place in order}
    return chosen


def extracted(site: Path) -> Iterator[Document]:
    """Main text of all pages, as the chain extracts it; pages without any are left out."""
    from fledge.corpus.extraction.extract import Extractor
    from fledge.corpus.judging.language import LanguageConfig, identify
    from fledge.corpus.pages import Found
    from fledge.corpus.reading.inputs import Part, ReadConfig
    from fledge.corpus.reading.read import read_part

    extract, reading, languages = Extractor(), ReadConfig(), LanguageConfig()
    for path in sorted(site.glob("*.warc.gz")):
        for item in read_part(Part(path.name, path, "warc"), reading):
            if isinstance(item, Found):
                page, problem, _ = extract(item)
                if not problem:
                    yield Document(text=page.text, source=item.url, language=identify(page.text, languages)[0])


def make_corpora(out: Path) -> None:
    chains = {"deduplicated": only_duplicates(out), "cleaned": {}, "relaxed": relaxed()}
    for name, values in chains.items():
        config = {"inputs": [str(out / "raw.jsonl")], "read": {"url_key": "source"}, "workers": 1, **values}
        corpus.run(build(corpus.Config, config), out / name)
    others = {k: v for k, v in read_manifest(out / "deduplicated")["metrics"]["stages"].items() if k != "duplicates"}
    if any(others.values()):
        raise SystemExit(f"deduplicated: more than copies was removed: {others}")
    tokens = {"documents": str(out / "cleaned"), "vocab_size": 4096}
    tokenizer.run(build(tokenizer.Config, tokens), out / "tokenizer")
    for name in CORPORA:
        documents = out / ("raw.jsonl" if name == "raw" else name)
        config = {"documents": str(documents), "tokenizer": str(out / "tokenizer"), "held_out": 0.0}
        shards.run(build(shards.Config, config), out / f"{name}-shards")


def only_duplicates(out: Path) -> Row:
    """Every step but duplicates lets everything pass."""
    with (out / "raw.jsonl").open(encoding="utf-8") as file:
        languages = sorted({*LANGUAGES, *(row["language"] for row in map(json.loads, file))})
    return {
        "languages": {"keep": languages, "minimum": {}, "other": 0.0},
        "rules": {"sets": {"en": [], "zh": [], "code": []}},
        "damage": {"share": 1.0}, "toxic": {"density": 1e9},
        "personal": {"action": "keep", "actions": {}, "code_action": "keep"},
    }  # fmt: skip


def relaxed() -> Row:
    """Least values halved, most values doubled: of rules, languages, damage and abuse. Personal data and copies leave
    as they do by default."""
    default = ChainConfig()
    limits = {
        language: {name: {"min": None if one.min is None else one.min / 2,
                          "max": None if one.max is None else one.max * 2}
                   for name, one in default.rules.table(language).items()}
        for language in LANGUAGES
    }  # fmt: skip
    least = {language: default.languages.threshold(language) / 2 for language in LANGUAGES}
    return {
        "rules": {"limits": limits}, "languages": {"minimum": least},
        "damage": {"share": 2 * default.damage.share}, "toxic": {"density": 2 * default.toxic.density},
    }  # fmt: skip


def crawl_facts(out: Path) -> Row:
    """What was planted, in pages and in characters of the raw corpus."""
    truth = read_truth(out)
    pages, characters = Counter[str](), Counter[str]()
    with (out / "raw.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            kind = truth[row["source"]]["defect"] or "clean"
            pages[kind] += 1
            characters[kind] += len(row["text"])
    with (out / "held_out.jsonl").open(encoding="utf-8") as file:
        held_out = Counter(row["language"] for row in map(json.loads, file))
    return {"pages": dict(pages.most_common()), "characters": dict(characters.most_common()), "held_out": held_out}


def corpus_facts(out: Path, name: str) -> Row:
    """Documents and tokens, and the shares of characters on clean pages, on copies of pages that are there as well (of
    several, the first is none), and on pages with another defect."""
    truth = read_truth(out)
    shares, there = Counter[str](), set[str]()
    if name == "raw":
        with (out / "raw.jsonl").open(encoding="utf-8") as file:
            texts = [(row["source"], row["text"]) for row in map(json.loads, file)]
    else:
        texts = [(row["url"], row["text"]) for row in rows(out / name / "documents", ["url", "text"])]
    for url, text in sorted(texts, key=lambda pair: (truth[pair[0]]["duplicate_of"] is not None, pair[0])):
        defect, original = truth[url]["defect"], truth[url]["duplicate_of"] or url
        alone = "copy" if original in there else "clean"
        shares[alone if defect is None or "duplicate" in defect else "defective"] += len(text)
        there.add(original)
    train = read_manifest(out / f"{name}-shards")["metrics"]["train"]
    return {
        "documents": train["documents"], "tokens": train["tokens"], "bytes": train["bytes"],
        "shares": {kind: round(count / shares.total(), 4) for kind, count in sorted(shares.items())},
    }  # fmt: skip


# ---- the same model on each ------------------------------------------------------------------------------------------


def train(out: Path, name: str, seed: int, tokens: int) -> Row:
    folder = out / f"model-{name}-{seed}-{tokens}"
    values = {
        "shards": str(out / f"{name}-shards"), "tokenizer": str(out / "tokenizer"), "tokens": tokens, "seed": seed,
        "model": {"size": "fledgling", "shape": SHAPE}, "held_out_tokens": 0,
    }  # fmt: skip
    pretrain.run(build(pretrain.Config, values), folder)
    metrics = read_manifest(folder)["metrics"]
    skills: Row = {}
    for part, which in ({"skills": [FACTS]}, ITEMS), ({"limit": OTHERS}, OTHERS):
        scores = out / f"{folder.name}-scores-{which}"
        asked = {"model": str(folder), "tasks": str(out / "world" / "test.jsonl"), "prompt": "plain", **part}
        evaluation.run(build(evaluation.Config, asked), scores)
        skills = {**read_scores(scores)["skills"], **skills}  # those of all items first
    kept = ("mean", "low", "high", "n")
    return {
        "corpus": name, "seed": seed, "parameters": metrics["parameters"], "tokens": metrics["tokens"],
        "epochs": round(metrics["epoch"], 2), "seconds": round(read_manifest(folder)["seconds"]),
        "bits_per_byte": bits_per_byte(out, folder),
        "skills": {skill: {la: {k: row[k] for k in kept} for la, row in languages.items()}
                   for skill, languages in skills.items()},
    }  # fmt: skip


def bits_per_byte(out: Path, model: Path) -> dict[str, float]:
    """Of the held-out pages of each language, all their bytes together."""
    place = out / f"{model.name}-bits.json"
    if not place.exists():
        from fledge.corpus.scoring.checkpoint import Checkpoint

        checkpoint = Checkpoint(model, characters=sys.maxsize)
        with (out / "held_out.jsonl").open(encoding="utf-8") as file:
            documents = [json.loads(line) for line in file]
        found = {}
        for language in LANGUAGES:
            texts = [row["text"] for row in documents if row["language"] == language]
            bits = checkpoint.score(texts, [language] * len(texts))["bits_per_byte"]
            found[language] = float(np.average(bits, weights=[len(text.encode()) for text in texts]))
        write_json(place, found)
    read: dict[str, float] = json.loads(place.read_text(encoding="utf-8"))
    return read


# ---- what is shown ---------------------------------------------------------------------------------------------------


def table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *lines))


def values_of(found: Row, name: str, of: Any) -> list[float]:
    """One value a seed."""
    return [of(run) for run in found["runs"] if run["corpus"] == name]


def measures(found: Row) -> dict[str, Any]:
    """Title -> how a run's value is read, the format, of what is shown for every corpus."""
    skills = found["runs"][0]["skills"]
    shown: dict[str, Any] = {}
    for language in LANGUAGES:
        shown[f"bits per byte, {language}"] = lambda run, la=language: run["bits_per_byte"][la]
    for language in LANGUAGES:
        shown[f"facts, {language}, %"] = lambda run, la=language: 100 * run["skills"][FACTS][la]["mean"]
    for language in LANGUAGES:
        others = [skill for skill in skills if skill != FACTS and language in skills[skill]]
        if not others:
            continue
        shown[f"other skills, {language}, %"] = lambda run, la=language, names=others: 100 * float(
            np.mean([run["skills"][skill][la]["mean"] for skill in names])
        )
    return shown


def results_table(found: Row) -> str:
    """Each cell: the mean of the seeds, and each seed's value."""
    shown = measures(found)
    lines = []
    for name in CORPORA:
        cells = [name]
        for title, of in shown.items():
            values = values_of(found, name, of)
            digits = 3 if title.startswith("bits") else 1
            each = ", ".join(f"{value:.{digits}f}" for value in values)
            cells.append(f"{np.mean(values):.{digits}f} ({each})")
        lines.append(cells)
    return table(["corpus", *shown], lines)


def skills_table(found: Row) -> str:
    """Every skill by itself, means of the seeds, English / Chinese."""
    skills = list(found["runs"][0]["skills"])
    lines = []
    for name in CORPORA:
        cells = [name]
        for skill in skills:
            means = [np.mean(values_of(found, name, lambda run, s=skill, la=la: 100 * run["skills"][s][la]["mean"]))
                     for la in LANGUAGES if la in found["runs"][0]["skills"][skill]]  # fmt: skip
            cells.append(" / ".join(f"{mean:.0f}" for mean in means))
        lines.append(cells)
    return table(["%", *(skill.replace("_", " ") for skill in skills)], lines)


def corpora_table(found: Row) -> str:
    lines = []
    for name in CORPORA:
        facts, epochs = found["corpora"][name], values_of(found, name, lambda run: run["epochs"])
        shares = [f"{100 * facts['shares'].get(kind, 0):.1f}" for kind in ("clean", "copy", "defective")]
        lines.append([name, f"{facts['documents']:,}", f"{facts['tokens']:,}", f"{np.mean(epochs):.2f}", *shares])
    head = ["corpus", "documents", "tokens", "epochs", "clean, % of characters", "copies, %", "other defects, %"]
    return table(head, lines)


def crawl_table(found: Row) -> str:
    pages, characters = (found["crawl"][key] for key in ("pages", "characters"))
    every, total = sum(pages.values()), sum(characters.values())
    lines = []
    for kind, count in pages.items():
        shares = (100 * count / every, 100 * characters[kind] / total)
        lines.append([kind.replace("_", " "), f"{count:,}", *(f"{share:.1f}" for share in shares)])
    return table(["pages", "count", "% of pages", "% of characters"], lines)


def conditions(found: Row) -> str:
    facts, settings, run = found["machine"], found["settings"], found["runs"][0]
    held_out, minutes = found["crawl"]["held_out"], sum(row["seconds"] for row in found["runs"]) / 60
    return (
        f"{run['parameters'] / 1e6:.2f} million parameters; {settings['tokens']:,} tokens each; seeds "
        f"{', '.join(map(str, settings['seeds']))}; {held_out['en']} English and {held_out['zh']} Chinese pages held "
        f"out; {ITEMS} questions about facts and {OTHERS} items of every other skill, a language. {facts['cpu']}, "
        f"{settings['threads'] or facts['cores']} of its cores; {minutes:.0f} minutes of training in all, beside "
        "other work."
    )


def write_page(found: Row) -> None:
    draw(found, DOCS.with_suffix(".svg"))
    text = DOCS.read_text(encoding="utf-8")
    parts = {"conditions": conditions(found), "results": results_table(found), "corpora": corpora_table(found),
             "skills": skills_table(found), "crawl": crawl_table(found)}  # fmt: skip
    for name, part in parts.items():
        text = fill(text, name, part)
    DOCS.write_text(text, encoding="utf-8")


def draw(found: Row, path: Path) -> None:
    """Left: bits per byte; right: facts. A bar is the mean of the seeds, a dot a seed."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style: Any = {"svg.hashsalt": "helps", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.6, 3.4), layout="constrained")
        FigureCanvasSVG(figure)
        panels = figure.subplots(1, 2)
        titles = ("held-out bits per byte: less is better", "facts told, %: more is better")
        for axes, prefix, title in zip(panels, ("bits", "facts"), titles, strict=True):
            shown = {key: of for key, of in measures(found).items() if key.startswith(prefix)}
            for number, (key, of) in enumerate(shown.items()):
                place = np.arange(len(CORPORA)) + 0.38 * number - 0.19
                values = [values_of(found, name, of) for name in CORPORA]
                label, colour = ("English", "#9aa5b1") if ", en" in key else ("Chinese", "#0b6e99")
                axes.bar(place, [np.mean(each) for each in values], 0.34, color=colour, label=label)
                for at, each in zip(place, values, strict=True):
                    axes.scatter([at] * len(each), each, s=9, color="black", zorder=3)
            axes.set_xticks(np.arange(len(CORPORA)), CORPORA)
            axes.set_title(title, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    sys.exit(main())

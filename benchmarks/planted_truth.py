"""What the corpus finds of what was planted: precision and recall of each stage, English and Chinese apart.

    python benchmarks/planted_truth.py [--pages 50000] [--workers 2] [--seed 0] [--keep DIR] [corpus key=value ...]

Generates the large crawl (`fledge microworld preset=crawl`), runs `fledge corpus` on it with planted truth and
decontamination, prints tables in Markdown and writes results/planted_truth.json. Figures below what the corpus
promises are marked with an asterisk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pair import HERE, RESULTS, WORK, machine

from fledge.core.artefact import code_version, versions

CLI = (sys.executable, "-c", "from fledge.cli import main; main()")
RECALL, PRECISION, LOSS = 0.95, 0.98, 0.02
# What the promises are about: duplicates, contamination, personal data, wrong language.
PROMISED = ("duplicates", "contamination", "personal", "language")
LANGUAGES = ("en", "zh", "other")
Row = dict[str, Any]


def fledge(*words: str) -> Row:
    """Seconds, processor seconds and peak memory (of the parent, MiB) of a command."""
    started = time.monotonic()
    process = subprocess.Popen([*CLI, *words], env={**os.environ, "PYTHONPATH": str(HERE.parent / "src")})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"fledge {words[0]} failed with status {status}")
    return {
        "seconds": round(time.monotonic() - started, 1), "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
    }  # fmt: skip


def measure(arguments: argparse.Namespace, folder: Path) -> Row:
    from fledge.microworld import presets

    clean = round(arguments.pages / (1 + presets["crawl"].defect_rate))
    world, corpus = folder / "world", folder / "corpus"
    made = fledge("microworld", "preset=crawl", f"pages={clean}", f"seed={arguments.seed}", "--out", str(world))
    run = fledge(
        "corpus", str(world / "site"), f"truth={world}/truth.jsonl", f"decontaminate=[{world}/test.jsonl]",
        f"workers={arguments.workers}", *arguments.overrides, "--out", str(corpus),
    )  # fmt: skip
    sizes = [path.stat().st_size for path in (world / "site").iterdir()]
    made |= {"warc_files": len(sizes), "warc_mib": round(sum(sizes) / 2**20, 1)}
    metrics = json.loads((corpus / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    run |= {key: metrics[key] for key in ("read", "kept", "dropped", "errors", "docs_per_second")}
    truth = json.loads((corpus / "truth.json").read_text(encoding="utf-8"))
    settings = {"pages": arguments.pages, "seed": arguments.seed, "workers": arguments.workers}
    return {
        "machine": machine(), "versions": versions(), "code": code_version(),
        "settings": {**settings, "overrides": arguments.overrides}, "microworld": made, "corpus": run, "truth": truth,
    }  # fmt: skip


def percent(value: float | None, least: float | None = None, most: float | None = None) -> str:
    """With an asterisk where it lies below `least` or above `most`."""
    if value is None:
        return "–"
    short = (least is not None and value < least) or (most is not None and value > most)
    return f"{100 * value:.1f}{'*' if short else ''}"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] + ["---:"] * (len(head) - 1), *rows)]
    return "\n".join(lines)


def each(languages: dict[str, Row], show: Any) -> list[str]:
    return [show(languages[la]) if la in languages else "" for la in LANGUAGES]


def markdown(found: Row) -> str:
    truth = found["truth"]
    parts = []

    def recall(row: Row, least: float | None) -> str:
        return f"{percent(row['recall'], least)} of {row['planted'] - row.get('moot', 0)}" if row.get("planted") else ""

    def precision(row: Row, least: float | None) -> str:
        return f"{percent(row['precision'], least)} of {row['accused']}" if row.get("accused") else ""

    def lost(row: Row) -> str:
        return f"{percent(row['false_positive_rate'], most=LOSS)} of {row['planted']}"

    rows = []
    for stage, languages in truth["stages"].items():
        wanted = (RECALL, PRECISION) if stage in PROMISED else (None, None)
        rows.append([stage, *each(languages, lambda r, w=wanted: recall(r, w[0])),
                     *each(languages, lambda r, w=wanted: precision(r, w[1]))])  # fmt: skip
    head = [f"recall, {la}" for la in LANGUAGES] + [f"precision, {la}" for la in LANGUAGES]
    parts.append(table(["stage", *head], rows))
    for name, title in (("defects", "defect"), ("forms", "form"), ("similarity", "true similarity of copies")):
        rows = []
        for key, languages in truth[name].items():
            removed = each(languages, lambda r: percent(r["removed_rate"]))
            rows.append([key, *each(languages, lambda r: recall(r, None)), *removed])
        heads = [f"found, {la}" for la in LANGUAGES] + [f"removed, {la}" for la in LANGUAGES]
        parts.append(table([title, *heads], rows))
    rows = []
    for name, languages in {"clean pages": truth["clean"], **truth["decoys"]}.items():
        rows.append([name, *each(languages, lost)])
    parts.append(table(["lost of", *LANGUAGES], rows))
    rows = [[rule, str(taken["count"]), ", ".join(sorted({e["kind"] for e in taken["examples"]}))]
            for rule, taken in sorted(truth["clean_lost"].items(), key=lambda item: -item[1]["count"])]  # fmt: skip
    parts.append(table(["rule that took clean pages", "pages", "among them"], rows))
    return "\n\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pages", type=int, default=50_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="leave crawl and corpus in this folder")
    parser.add_argument("--results", type=Path, help="where the JSON goes; results/planted_truth.json at 50,000 pages")
    parser.add_argument("overrides", nargs="*", help="key=value for the corpus")
    arguments = parser.parse_args()
    usual = (RESULTS if arguments.pages == 50_000 else WORK) / "planted_truth.json"
    path: Path = arguments.results or usual
    if arguments.keep:
        found = measure(arguments, arguments.keep)
    else:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(arguments, Path(folder))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    made, run = found["microworld"], found["corpus"]
    print(f"crawl: {made}\ncorpus: {run}\n\n{markdown(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

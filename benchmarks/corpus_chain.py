"""The whole default chain of a corpus: documents a second and core, and what a second worker is worth.

    python benchmarks/corpus_chain.py [--rounds 2] [--pages 10000] [--documents 6000] [--quick]

Two inputs: the generated crawl (`fledge microworld preset=crawl`: HTML in WARC, with its planted defects), and English
prose of 3.4 KB a document (sentences of the interpreter's own reference, drawn anew for each document) as JSONL.
`fledge corpus` makes each with one worker and with two, in turn (A B A B), every time from nothing; medians, and the
ratio within a round. The rate is that of the command's own manifest: all steps, the start of the workers and duplicates
included, without the interpreter's start. The rate of a processor second counts all processes, with their start. Writes
results/corpus_chain.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from pair import RESULTS, SIDES, WORK, lock, machine
from planted_truth import fledge

from fledge.core.artefact import code_version, versions

sys.path.insert(0, str(SIDES))
import prose

FILES = 8  # of prose: shards that two workers share
WORKERS = (1, 2)
Row = dict[str, Any]


def make_inputs(folder: Path, pages: int, documents: int) -> dict[str, Path]:
    from fledge.microworld import presets

    clean = round(pages / (1 + presets["crawl"].defect_rate))
    fledge("microworld", "preset=crawl", f"pages={clean}", "--out", str(folder / "world"))
    texts = folder / "prose"
    texts.mkdir()
    for number in range(FILES):
        rows = prose.sentences_again(documents // FILES, seed=number)
        lines = "".join(json.dumps({"text": text}) + "\n" for text in rows)
        (texts / f"{number}.jsonl").write_text(lines, encoding="utf-8")
    return {"crawl": folder / "world" / "site", "prose": texts}


def measure(source: Path, workers: int, folder: Path) -> Row:
    out = folder / f"corpus-{workers}"
    shutil.rmtree(out, ignore_errors=True)
    run = fledge("corpus", str(source), f"workers={workers}", "--out", str(out))
    metrics = json.loads((out / "manifest.json").read_text(encoding="utf-8"))["metrics"]
    run |= {key: metrics[key] for key in ("read", "kept", "dropped", "errors", "docs_per_second")}
    run["docs_per_cpu_second"] = round(run["read"] / run["cpu_seconds"], 1)
    return {"workers": workers, **run}


def in_turn(name: str, source: Path, rounds: int, folder: Path) -> Row:
    runs: list[Row] = []
    for _ in range(rounds):
        with lock():
            for workers in WORKERS:
                runs.append(measure(source, workers, folder))
                print(f"  {name}: {runs[-1]}", flush=True)
    one, two = ([run["docs_per_second"] for run in runs if run["workers"] == workers] for workers in WORKERS)
    ratios = [round(b / a, 3) for a, b in zip(one, two, strict=True)]
    return {
        "input": name, "documents": runs[0]["read"], "one_worker": statistics.median(one),
        "two_workers": statistics.median(two), "ratio": statistics.median(ratios), "ratios": ratios,
        "per_core": statistics.median(run["docs_per_cpu_second"] for run in runs if run["workers"] == 1), "runs": runs,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pages", type=int, default=10_000, help="of the crawl")
    parser.add_argument("--documents", type=int, default=6_000, help="of prose")
    parser.add_argument("--quick", action="store_true", help="one round of a tenth; results go to .work/quick")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a worker is a core
    share, rounds = (10, 1) if arguments.quick else (1, arguments.rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = make_inputs(folder, arguments.pages // share, arguments.documents // share)
        rows = [in_turn(what, source, rounds, folder) for what, source in inputs.items()]
    found = {"machine": machine(), "versions": versions(), "code": code_version(), "rounds": rounds, "rows": rows}
    path = (WORK / "quick" if arguments.quick else RESULTS) / "corpus_chain.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(
            f"{row['input']}, {row['documents']:,} documents: {row['one_worker']:,.0f} documents/s with one worker "
            f"({row['per_core']:,.0f} a processor second), {row['two_workers']:,.0f} with two: x{row['ratio']:.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

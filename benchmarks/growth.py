"""How time and memory grow: figures of ours alone, as JSON and plots.

    python benchmarks/growth.py [--only vocabulary] [--quick]

Step time from 1k to 64k tokens a batch; peak memory against the vocabulary and against the data set; engine throughput
from 1 to 256 sequences; what a step waits for its batch; memory at 32k tokens with and without recomputing
activations; what the second thread gains a step, beside what it gains the machine's own bf16 product. Writes
results/growth.json and docs/growth-*.svg. A series that is measured anew replaces its old values.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pair import HERE, RESULTS, WORK, Missing, Run, Side, lock, machine, prepare, run_side

Points = list[dict[str, Any]]


def train(*words: str, **variables: str) -> Run:
    with lock():
        return run_side(Side("fledge_train.py", ("pretrain", *words), variables=variables))


def point(run: Run, **facts: Any) -> dict[str, Any]:
    """What every series keeps of a run."""
    seconds = statistics.median(run.facts["step_seconds"])
    return {**facts, "seconds": round(seconds, 4), "rate": round(run.rate, 1), "mib": round(run.mib)}


def step_time(quick: bool) -> Points:
    """Segments of 512, micro-batches of 8,192 tokens: what the loop does by itself."""
    batches = (2, 8, 32, 128) if not quick else (2, 32)
    runs = [(batch, train("--batch", str(batch), "--steps", "3", "--warmup", "1")) for batch in batches]
    return [point(run, tokens=512 * batch) for batch, run in runs]


def vocabulary(quick: bool) -> Points:
    """2,048 tokens a step. ``beyond``: peak memory less what the embedding itself takes: float32 parameter, gradient
    and two moments, and its bf16 copy with a gradient, 20 bytes an entry."""
    result = []
    for size, rows in (("tiny8k", 8192), ("tiny32k", 32_768), ("tiny152k", 151_936)):
        run = train("--size", size, "--batch", "4", "--steps", "2", "--warmup", "1")
        result.append(point(run, vocabulary=rows, beyond=round(run.mib - 20 * rows * 256 / 2**20)))
    return result


def data_set(quick: bool) -> Points:
    """Token shards of so many tokens, memory-mapped; 4,096 tokens a step."""
    result = []
    for tokens in (1_000_000, 10_000_000, 100_000_000)[: 2 if quick else 3]:
        words = [sys.executable, str(HERE / "sides" / "make_shards.py"), str(tokens)]
        with lock():
            subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(HERE.parent / "src")})
        run = train("--shards", str(WORK / "shards" / str(tokens)), "--steps", "4", "--warmup", "1")
        result.append(point(run, tokens=tokens))
    return result


def engine(quick: bool) -> Points:
    """Sampling as commands do, compiled: prompts of 128 tokens, 128 new ones, every sequence a prompt of its own."""
    result = []
    for rows in (1, 8, 64, 256) if quick else (1, 4, 16, 64, 128, 256):
        side = Side("fledge_generate.py", ("--prompts", str(rows), "--samples", "1", "--steps", "2", "--compile"))
        with lock():
            run = run_side(side)
        result.append(point(run, sequences=rows))
    return result


def loader(quick: bool) -> Points:
    """Share of a step that waits for its batch: source and packing."""
    result = []
    for job, words in (("pretrain", ("--batch", "8")), ("sft", ("--batch", "8")), ("dpo", ("--batch", "4"))):
        with lock():
            run = run_side(Side("fledge_train.py", (job, *words, "--steps", "4")))
        share = {key: run.facts[key] for key in ("loader_share", "source_seconds", "pack_seconds")}
        result.append(point(run, job=job, **share))
    return result


def recompute(quick: bool) -> Points:
    """32,768 tokens in one micro-batch: the activations of all of them at once."""
    words = ("--batch", "64", "--micro-tokens", "32768", "--steps", "2", "--warmup", "1")
    result = []
    for name, extra in (("kept", ()), ("recomputed", ("--recompute",))):
        try:
            result.append(point(train(*words, *extra), activations=name))
        except Missing as problem:
            result.append({"activations": name, "skipped": str(problem)})
            print(f"  skipped: {problem}", flush=True)
    return result


def threads(quick: bool) -> Points:
    """The step and the machine's own bf16 product, with one thread and with two, in turn."""
    result = []
    for size, batch in (("tiny8k", "8"), ("small30m", "8")):
        values: dict[str, list[tuple[float, float]]] = {"1": [], "2": []}
        for _ in range(1 if quick else 3):
            for count, found in values.items():
                words = ("--size", size, "--batch", batch, "--steps", "3", "--warmup", "1")
                run = train(*words, OMP_NUM_THREADS=count)
                found.append((run.rate, run.facts["machine_gflops"]))
        step = statistics.median(b[0] / a[0] for a, b in zip(values["1"], values["2"], strict=True))
        product = statistics.median(b[1] / a[1] for a, b in zip(values["1"], values["2"], strict=True))
        result.append({"size": size, "step_gain": round(step, 3), "product_gain": round(product, 3),
                       "share": round(step / product, 3), "values": values})  # fmt: skip
    return result


SERIES: dict[str, Callable[[bool], Points]] = {
    "step_time": step_time, "vocabulary": vocabulary, "data_set": data_set, "engine": engine, "loader": loader,
    "recompute": recompute, "threads": threads,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="series whose name holds this")
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    prepare(("tiny8k", "tiny32k", "tiny152k", "small30m"))
    path = (WORK / "quick" if arguments.quick else RESULTS) / "growth.json"
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if facts.get("machine") != machine():
        facts = {"machine": machine(), "series": {}}
    for name, measure in SERIES.items():
        if arguments.only in name:
            facts["series"][name] = measure(arguments.quick)
            for one in facts["series"][name]:
                print(f"{name}: {one}", flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if not arguments.quick:
        plot(facts["series"], HERE.parent / "docs")
    return 0


def plot(series: dict[str, Points], docs: Path) -> None:
    """One small figure of each series that has an axis."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "fledge", "font.size": 9})
    from matplotlib import pyplot

    axes = {
        "step_time": ("tokens", "seconds", "tokens a step", "seconds a step"),
        "vocabulary": ("vocabulary", "beyond", "vocabulary", "MiB beyond the embedding's own"),
        "data_set": ("tokens", "mib", "tokens of the data set", "peak MiB"),
        "engine": ("sequences", "rate", "sequences side by side", "new tokens a second"),
    }
    for name, (x, y, below, beside) in axes.items():
        points = [p for p in series.get(name, []) if x in p]
        if not points:
            continue
        figure, axis = pyplot.subplots(figsize=(3.6, 2.4), layout="constrained")
        axis.plot([p[x] for p in points], [p[y] for p in points], marker="o", markersize=3, linewidth=1)
        axis.set(xlabel=below, ylabel=beside, xscale="log")
        if name in ("step_time", "engine"):
            axis.set(yscale="log")
        else:
            axis.set(ylim=(0, None))
        axis.grid(alpha=0.3)
        figure.savefig(docs / f"growth-{name.replace('_', '-')}.svg", metadata={"Date": None})
        pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())

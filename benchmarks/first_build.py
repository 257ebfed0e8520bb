"""How long the C++ loops take to build, the first time on a machine: each into an empty cache, one after another.

    python benchmarks/first_build.py [--rounds 2]

Writes results/first_build.json. What a training run builds, with `compile: auto`, are those of core/ and model/.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from pair import HERE, RESULTS, lock, machine

from fledge.core.native import load_loops

SOURCES = HERE.parent / "src" / "fledge"
TRAINING = ("core", "model")


def build(source: Path) -> dict[str, float]:
    """Seconds by the clock, and of the processor: on a busy machine they differ."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        started, before = time.monotonic(), spent()
        load_loops(source)
        return {"seconds": time.monotonic() - started, "cpu_seconds": spent() - before}


def spent() -> float:
    """Processor seconds of the compilers that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _sum(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(sum(row[key] for row in rows), 2) for key in ("seconds", "cpu_seconds")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(arguments.rounds):
        with lock():
            for source in sorted(SOURCES.rglob("*.cpp")):
                found.setdefault(str(source.relative_to(SOURCES)), []).append(build(source))
    medians = {
        name: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
        for name, runs in found.items()
    }
    training = [seconds for name, seconds in medians.items() if name.startswith(TRAINING)]
    sums = {"of a training run": _sum(training), "all": _sum(list(medians.values()))}
    rows = [{"loops": name, **seconds} for name, seconds in (medians | sums).items()]
    RESULTS.mkdir(exist_ok=True)
    facts = {"machine": machine(), "rounds": arguments.rounds, "rows": rows}
    (RESULTS / "first_build.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for row in rows:
        print(f"{row['loops']}: {row['seconds']} s, {row['cpu_seconds']} s of the processor")
    return 0


if __name__ == "__main__":
    sys.exit(main())

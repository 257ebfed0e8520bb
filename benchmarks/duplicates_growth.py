"""How the global step of duplicates grows: 50,000 and 500,000 short documents, and a limit below what it holds.

    python benchmarks/duplicates_growth.py [--quick]

One process a point. The first two make the ratios; points with another memory and two threads must come
to the same outcome (a digest over every document that leaves, its survivor, its similarity, and the clusters). Writes
results/duplicates_growth.json. ``mib`` is the peak of the process, which also makes the documents, a shard at a time.
"""

from __future__ import annotations

import argparse
import json
import sys

from pair import RESULTS, WORK, Side, lock, machine, run_side

POINTS = ((50_000, 64, 1), (500_000, 64, 1), (500_000, 128, 1), (500_000, 256, 2), (500_000, 1024, 2))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a tenth of the documents")
    arguments = parser.parse_args()
    found = []
    for documents, memory, threads in POINTS:
        count = documents // 10 if arguments.quick else documents
        words = (str(max(20_000, count)), "--memory", str(memory), "--threads", str(threads))
        with lock():
            run = run_side(Side("fledge_grouping.py", words))
        point = {"documents": count, "memory": memory, "threads": threads, "mib": round(run.mib), **run.facts}
        print({key: value for key, value in point.items() if key not in ("versions", "first_step_seconds")}, flush=True)
        found.append(point)
    path = (WORK / "quick" if arguments.quick else RESULTS) / "duplicates_growth.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": machine(), "points": found}, indent=1) + "\n", encoding="utf-8")
    small, large = found[0], found[1]
    print(f"CPU time x{large['cpu'] / small['cpu']:.1f}, memory x{large['mib'] / small['mib']:.2f}")
    same = len({point["outcome"] for point in found if point["documents"] == large["documents"]}) == 1
    print("the same outcome with any memory and threads" if same else "the outcomes differ")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

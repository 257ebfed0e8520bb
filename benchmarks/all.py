"""Every row, one after another: `make bench` (three rounds, under 55 minutes), `make bench-quick` (one short round).

    python benchmarks/all.py [--quick] [--minutes 55]

Rows come in the order of docs/performance.md. Time that runs out is said: what was not measured keeps its old figures.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from pair import HERE

# One script a row, and its rounds where three would take too long.
SCRIPTS: tuple[tuple[str, int], ...] = (
    ("pretrain", 3), ("pretrain_fp32", 3), ("pretrain_wide", 3), ("sft", 3), ("sft_wide", 3), ("lora", 3),
    ("reward_model", 3), ("dpo", 3), ("grpo", 3), ("online", 3), ("sample", 3), ("greedy", 3), ("tokenise", 3),
    ("cold_start", 3), ("growth", 1),
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--minutes", type=float, help="no row is begun after these; 50, or 17 with --quick")
    arguments = parser.parse_args()
    limit = 60 * (arguments.minutes or (17 if arguments.quick else 50))
    started = time.monotonic()
    failed, left = [], []
    for name, rounds in SCRIPTS:
        path = HERE / f"{name}.py"
        if not path.exists():
            print(f"{name}: {path.name} is not there yet", flush=True)
            continue
        if time.monotonic() - started > limit:
            left.append(name)
            continue
        print(f"\n== {name}", flush=True)
        words = ["--quick"] if arguments.quick else ["--rounds", str(rounds)] if name != "growth" else []
        if subprocess.run([sys.executable, str(path), *words]).returncode:
            failed.append(name)
    print(f"\n{(time.monotonic() - started) / 60:.0f} minutes", flush=True)
    for names, what in ((failed, "failed"), (left, "not begun, for lack of time")):
        if names:
            print(f"{what}: {', '.join(names)}", file=sys.stderr)
    if not arguments.quick:
        subprocess.run([sys.executable, str(HERE / "write_docs.py")], check=True)
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())

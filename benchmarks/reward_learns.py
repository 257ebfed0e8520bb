"""Does a reward model learn? Two seeds on the microworld's preferences, and on any file of pairs.

    fledge run fledgling                          # makes runs/fledgling, a quarter of an hour
    python benchmarks/reward_learns.py [--run runs/fledgling] [--seeds 0 1] [--data pairs.jsonl] [--tag KEY]

A fifth of the prompts is held out by seed. Prints and writes results/reward_learns.json: accuracy with its 95%
interval, calibration, correlation with length, accuracy of choosing the longer answer, and the best of n on the run's
tasks.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from fledge.core.artefact import code_version, hardware, read_manifest
from fledge.core.config import build
from fledge.core.machine import set_switches
from fledge.stages import reward

RESULTS = Path(__file__).parent / "results" / "reward_learns.json"
GOAL = 0.9  # of held-out pairs, on the microworld


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--run", type=Path, default=Path("runs/fledgling"), help="a run of the recipe fledgling")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--data", type=Path, nargs="+", help="pairs; default: the microworld's")
    parser.add_argument("--tag", default=None, help="key of meta whose values are drawn equally often")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--out", type=Path, default=Path("runs/reward"))
    arguments = parser.parse_args()
    set_switches()
    data = arguments.data or [arguments.run / "world" / "preferences.jsonl"]
    name = data[0].parent.name if arguments.data else "microworld"
    rows = []
    for seed in arguments.seeds:
        out = arguments.out / f"{name}-{seed}"
        reward.run(build(reward.Config, settings(arguments, data, seed)), out)
        quality = json.loads((out / "quality.json").read_text(encoding="utf-8"))
        manifest = read_manifest(out)
        trained_on = manifest["metrics"]["rows_used"] - manifest["metrics"]["held_out_rows"]
        rows.append({"seed": seed, **quality, "seconds": manifest["seconds"], "trained_on": trained_on})
        print(line(name, rows[-1]), flush=True)
    write(name, rows, settings(arguments, data, 0))
    return 0 if arguments.data or all(row["accuracy"] >= GOAL for row in rows) else 1


def settings(arguments: argparse.Namespace, data: list[Path], seed: int) -> dict[str, Any]:
    values: dict[str, Any] = {
        "model": arguments.run / "sft", "data": data, "held_out": 0.2, "epochs": arguments.epochs, "batch_size": 16,
        "seed": seed, "balance": arguments.tag, "on_error": "skip", "centre": 0.01,
        "optimizer": {"lr": arguments.lr, "schedule": {"kind": "cosine", "warmup": 0.05}},
    }  # fmt: skip
    if not arguments.data:
        values["best_of"] = {
            "policy": arguments.run / "sft", "tasks": arguments.run / "world" / "tasks.jsonl", "max_new_tokens": 48,
        }  # fmt: skip
    return values


def line(name: str, row: dict[str, Any]) -> str:
    text = (
        f"{name}, seed {row['seed']}: {100 * row['accuracy']:.1f}% [{100 * row['accuracy_low']:.1f}, "
        f"{100 * row['accuracy_high']:.1f}] of {row['pairs']:.0f} held-out pairs; choosing the longer answer "
        f"{100 * row['chosen_longer']:.1f}%; length correlation {row['length_correlation']:+.2f}; "
        f"calibration error {row['expected_calibration_error']:.3f}; {row['seconds']:.0f} s"
    )
    if "best_of_n" in row:
        curve = ", ".join(f"{n}: {value:.3f}" for n, value in row["best_of_n"]["chosen"].items())
        text += f"; best of n {curve} (oracle {list(row['best_of_n']['oracle'].values())[-1]:.3f})"
    return text


def write(name: str, rows: list[dict[str, Any]], config: dict[str, Any]) -> None:
    """Other data's rows stay."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    kept = {key: value for key, value in config.items() if key not in ("model", "data", "best_of")}
    known[name] = {"machine": hardware(), "code": code_version(), "config": kept, "seeds": rows}
    RESULTS.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

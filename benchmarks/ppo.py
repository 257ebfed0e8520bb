"""What PPO does on the microworld: verifiable accuracy over SFT, top-p .9 against 1.0, the pretraining gradient.

    python benchmarks/ppo.py RUN [--seeds 0 1] [--steps 100] [--out runs/ppo] [--only top-p-1.0]

RUN is a finished run of the recipe `fledgling`, of which ``sft``, ``world`` and ``shards`` are used. Every variant
starts from the same SFT model; nothing is replayed, so that what PPO costs is seen. Interrupted and started again, it
goes on. Writes benchmarks/results/ppo.json and the tables of docs/alignment/ppo.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from found import evaluated, this_machine

from fledge.core.artefact import code_version, hardware, read_manifest, versions
from fledge.core.config import build
from fledge.core.machine import set_switches
from fledge.evaluate.compare import compare
from fledge.stages import ppo
from fledge.train.metrics import read_metrics

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "ppo.json"
MARK, END = "<!-- measured -->", "<!-- end -->"
SKILLS = ["hard_sums", "recall"]  # what the tasks are about most, and what they hardly touch
WARMUP = 20
# name -> what it changes
VARIANTS: dict[str, dict[str, Any]] = {
    "top-p-0.9": {"rollout": {"top_p": 0.9}},
    "top-p-1.0": {"rollout": {"top_p": 1.0}},
    "ptx-0.1": {"rollout": {"top_p": 1.0}, "ptx": {"coefficient": 0.1}},
    "ptx-0.5": {"rollout": {"top_p": 1.0}, "ptx": {"coefficient": 0.5}},
    "ptx-2.0": {"rollout": {"top_p": 1.0}, "ptx": {"coefficient": 2.0}},
}


def settings(run: Path, name: str, seed: int, steps: int) -> dict[str, Any]:
    """Qwen1's numbers, with rates for a model of 3 million parameters (Qwen1's ratio of 5 between the two)."""
    constant = {"weight_decay": 0.0, "schedule": {"kind": "constant", "warmup": 0.1}}
    values: dict[str, Any] = {
        "preset": "qwen1", "model": str(run / "sft"), "tasks": [str(run / "world/tasks.jsonl")], "seed": seed,
        "steps": steps, "epochs": 2, "minibatches": 1, "optimizer": {"lr": 2e-4, **constant},
        "value": {"optimizer": {"lr": 1e-3, **constant}, "warmup": WARMUP},
        "rollout": {"prompts": 64, "max_new_tokens": 80}, "held_out": str(run / "shards"), "max_tokens": 256,
        "loop": {"micro_tokens": 16384, "probe_steps": 10, "tensorboard": False},
    }  # fmt: skip
    change = VARIANTS[name]
    values["rollout"] = {**values["rollout"], **change["rollout"]}
    if "ptx" in change:
        values["ptx"] = {"shards": str(run / "shards"), "ratio": 1.0, "context": 256, **change["ptx"]}
    return values


def measure(run: Path, out: Path, name: str, seed: int, steps: int) -> dict[str, Any]:
    folder = out / f"{name}-{seed}"
    ppo.run(build(ppo.Config, settings(run, name, seed, steps)), folder)
    before = evaluated(run / "sft", run / "world/test.jsonl", out / "sft-scores", skills=SKILLS)
    after = evaluated(folder, run / "world/test.jsonl", out / f"{name}-{seed}-scores", skills=SKILLS)
    rows = read_metrics(folder)
    moving = [row for row in rows if row["lr"] > 0]
    quarter = max(1, len(moving) // 4)
    quarters = [moving[i * quarter : (i + 1) * quarter] for i in range(4)]

    def mean(key: str, part: list[dict[str, float]]) -> float:
        found = [row[key] for row in part if key in row]
        return sum(found) / len(found) if found else float("nan")

    bits = [(int(row["step"]), row["bits_per_byte"]) for row in rows if "bits_per_byte" in row]
    return {
        "name": name, "seed": seed, "machine": this_machine(),
        "seconds": read_manifest(folder)["seconds"],
        "skills": compare(before, after)["skills"],
        "reward": [mean("reward", part) for part in (rows[:WARMUP], *quarters)],
        "entropy": [mean("entropy", quarters[0]), mean("entropy", quarters[-1])],
        "kl": mean("kl", quarters[-1]), "value_explained": mean("value_explained", quarters[-1]),
        "cut_off": mean("cut_off", quarters[-1]), "bits_per_byte": bits,
    }  # fmt: skip


def tables(found: list[dict[str, Any]], steps: int) -> list[str]:
    def points(row: dict[str, Any]) -> str:
        return f"{row['before']:.0%} → {row['after']:.0%} ({100 * row['low']:+.0f} to {100 * row['high']:+.0f})"

    places = [(skill, language) for skill in SKILLS for language in ("en", "zh")]
    columns = ["variant", "seed", *(f"{skill}/{language}" for skill, language in places), "reward: warm-up, quarters"]
    columns += ["entropy, first and last quarter", "kl", "bits per byte, before and after", "machine"]
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in found:
        cells = [row["name"], str(row["seed"]), *(points(row["skills"][s][language]) for s, language in places)]
        cells += [" ".join(f"{x:.2f}" for x in row["reward"]), " ".join(f"{x:.3f}" for x in row["entropy"])]
        bits = row["bits_per_byte"]
        cells += [f"{row['kl']:.2f}", f"{bits[0][1]:.3f} {bits[-1][1]:.3f}", row["machine"]]
        lines.append("| " + " | ".join(cells) + " |")
    return [
        f"Written by `python benchmarks/ppo.py`: {steps} updates, the first {WARMUP} of the value alone, two for each "
        "rollout of 64 prompts; the SFT model of the quickstart; nothing replayed. Rates 2e-4 and 1e-3, otherwise the "
        "preset `qwen1`. Differences to the SFT model over the same held-out items with 95% paired bootstrap "
        "intervals, in points.", "", *lines,
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("runs/ppo"))
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    arguments = parser.parse_args()
    set_switches()
    for seed in arguments.seeds:
        for name in arguments.only:
            row = measure(arguments.run, arguments.out, name, seed, arguments.steps)
            print(json.dumps(row), flush=True)
            found = [*kept(row, arguments.steps), row]
            found.sort(key=lambda row: (list(VARIANTS).index(row["name"]), row["seed"]))
            write(found, arguments.steps)
    return 0


def kept(row: dict[str, Any], steps: int) -> list[dict[str, Any]]:
    """Rows of the same length that were measured before, on whichever machine, but for the one measured again."""
    if not RESULTS.exists() or (before := json.loads(RESULTS.read_text(encoding="utf-8")))["steps"] != steps:
        return []
    found: list[dict[str, Any]] = before["found"]
    return [other for other in found if (other["name"], other["seed"]) != (row["name"], row["seed"])]


def write(found: list[dict[str, Any]], steps: int) -> None:
    facts = {"machine": hardware(), "versions": versions(), "code": code_version(), "steps": steps, "found": found}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    page = ROOT / "docs" / "alignment" / "ppo.md"
    head, _, rest = page.read_text(encoding="utf-8").partition(MARK)
    after = rest.partition(END)[2]
    page.write_text(head + "\n".join([MARK, *tables(found, steps), END]) + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

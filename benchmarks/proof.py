"""Do the stages do something? Two seeds of the recipe `fledgling`, many held-out items, paired intervals.

    python benchmarks/proof.py [--seeds 0 1] [--items 500] [--out runs]

Runs the recipe with more test items, and beside it a control: the DPO model trained on SFT data for as long as GRPO
took. Every difference is over the same items, with a 95% paired bootstrap interval. Writes docs/proof.md and
benchmarks/results/proof.json, and exits with 1 where a claim does not hold. Interrupted and started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fledge.core.artefact import code_version, hardware, read_manifest, versions
from fledge.core.config import build
from fledge.core.machine import machine, set_switches
from fledge.core.progress import duration
from fledge.evaluate import stage as evaluation
from fledge.evaluate.compare import compare
from fledge.execute import execute
from fledge.recipe import Plan, load_plan
from fledge.stages import sft

ROOT = Path(__file__).parents[1]
COST = 0.05  # what a stage may cost any other skill
FOLLOWING = ("arithmetic", "translation", "format", "code")  # what must be asked for to be done
LIFTED = {"dpo": "identity", "grpo": "hard_sums"}  # what a stage is for; nothing before it teaches this
Row = dict[str, Any]


@dataclass
class Claim:
    """One line of the proof."""

    seed: int
    text: str
    skill: str
    language: str
    before: float
    after: float
    gain: float
    low: float
    high: float
    items: int
    holds: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--items", type=int, default=500, help="held-out items per skill and language")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    set_switches()
    claims: list[Claim] = []
    seconds: dict[str, dict[str, float]] = {}
    for seed in arguments.seeds:
        overrides = [f"seed={seed}", f"world.tests_per_skill={arguments.items}"]
        plan = load_plan("fledgling", overrides, arguments.out, f"proof-{seed}")
        execute(plan, say=lambda line: print(line, flush=True))
        more_sft(plan, seed)
        claims += judge(plan.folder, seed)
        seconds[str(seed)] = {s.name: read_manifest(s.folder)["seconds"] for s in plan.steps}
    write(claims, seconds, arguments.items)
    for claim in claims:
        if not claim.holds:
            print(f"does not hold: {claim}", file=sys.stderr)
    return 0 if all(claim.holds for claim in claims) else 1


def more_sft(plan: Plan, seed: int) -> None:
    """The control: DPO's model, on SFT's data and settings, for the seconds that GRPO took."""
    steps = {step.name: step for step in plan.steps}
    taken = {name: float(read_manifest(steps[name].folder)["seconds"]) for name in ("sft", "grpo")}
    values = steps["sft"].config.plain()
    epochs = round(values["epochs"] * taken["grpo"] / taken["sft"], 1)
    folder = plan.folder / "more-sft"
    if folder.exists():
        epochs = read_manifest(folder)["config"]["epochs"]
    sft.run(build(sft.Config, {**values, "model": str(plan.folder / "dpo"), "epochs": max(0.1, epochs)}), folder)
    scores = {
        **steps["grpo-scores"].config.plain(),
        "model": str(folder),
        "skills": [LIFTED["grpo"]],
        "questions": None,
    }
    evaluation.run(build(evaluation.Config, scores), plan.folder / "more-sft-scores")


def judge(run: Path, seed: int) -> list[Claim]:
    def pair(before: str, after: str) -> dict[str, dict[str, Row]]:
        skills: dict[str, dict[str, Row]] = compare(run / f"{before}-scores", run / f"{after}-scores")["skills"]
        return skills

    def claim(text: str, skill: str, language: str, row: Row, holds: bool) -> Claim:
        return Claim(
            seed, text, skill, language, row["before"], row["after"], row["mean"], row["low"], row["high"], row["n"],
            holds,
        )  # fmt: skip

    claims = []
    for skill, languages in pair("base", "sft").items():
        if skill in FOLLOWING:
            claims += [claim("SFT over base", skill, lang, row, row["low"] > 0) for lang, row in languages.items()]
    for stage, before in (("dpo", "sft"), ("grpo", "dpo")):
        for skill, languages in pair(before, stage).items():
            for language, row in languages.items():
                if skill != LIFTED[stage]:
                    text = f"{stage.upper()} costs at most 5 points"
                    claims.append(claim(text, skill, language, row, row["mean"] >= -COST))
                elif stage == "dpo":
                    turned = row["before"] < 0.1 and row["after"] > 0.9 and row["low"] > 0
                    claims.append(claim("DPO turns the identity, <10% to >90%", skill, language, row, turned))
                else:
                    holds = row["mean"] >= 0.1 and row["low"] > 0
                    claims.append(claim("GRPO lifts by at least 10 points", skill, language, row, holds))
    for language, row in pair("more-sft", "grpo")[LIFTED["grpo"]].items():
        claims.append(claim("GRPO over as many seconds of more SFT", LIFTED["grpo"], language, row, row["low"] > 0))
    return claims


def write(claims: list[Claim], seconds: dict[str, dict[str, float]], items: int) -> None:
    facts: dict[str, Any] = {
        "machine": hardware(), "compute": machine().plain(), "versions": versions(), "code": code_version(),
        "items": items, "seconds": seconds, "claims": [asdict(c) for c in claims],
    }  # fmt: skip
    results = ROOT / "benchmarks" / "results" / "proof.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    held = sum(c.holds for c in claims)
    lines = [
        "# Do the stages do something?",
        "",
        f"Written by `benchmarks/proof.py` (`make proof`). {held} of {len(claims)} claims hold. Seeds "
        f"{', '.join(seconds)}; {items} held-out items per skill and language; differences over the same items with "
        "95% paired bootstrap intervals, in points.",
        "",
        f"Machine: {facts['machine']['cpu']}, {facts['machine']['cores']} cores, "
        f"{facts['compute']['dtype']} ({facts['compute']['bf16'] or 'no bf16 instructions'}).",
        "",
        "| seed | claim | skill | language | before | after | gain | 95% interval | holds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    lines += [
        f"| {c.seed} | {c.text} | {c.skill} | {c.language} | {c.before:.1%} | {c.after:.1%} | {100 * c.gain:+.1f} | "
        f"{100 * c.low:+.1f} to {100 * c.high:+.1f} | {'yes' if c.holds else '**no**'} |"
        for c in claims
    ]
    lines += ["", "Seconds of each stage:", "", "| seed | " + " | ".join(next(iter(seconds.values()))) + " |"]
    lines.append("|---" * (1 + len(next(iter(seconds.values())))) + "|")
    lines += [f"| {seed} | " + " | ".join(duration(s) for s in row.values()) + " |" for seed, row in seconds.items()]
    (ROOT / "docs" / "proof.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())

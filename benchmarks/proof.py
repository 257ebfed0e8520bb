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
from fledge.evaluate.compare import compare, read_results
from fledge.execute import execute
from fledge.microworld.skills.table import LANGUAGES, SKILLS
from fledge.recipe import Plan, load_plan
from fledge.stages import sft

ROOT = Path(__file__).parents[1]
COST = 0.05  # what a stage may cost any other skill
FOLLOWING = ("arithmetic", "translation", "format", "code")  # what must be asked for to be done
LIFTED = {"dpo": "identity", "grpo": "hard_sums"}  # what a stage is for; nothing before it teaches this
FOLLOWS = "SFT over base"
LIFTS = {"dpo": "DPO turns the identity, <10% to >90%", "grpo": "GRPO lifts by at least 10 points"}
COSTS = {stage: f"{stage.upper()} costs at most 5 points" for stage in LIFTED}
MORE = "GRPO over as many seconds of more SFT"
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
    seen: float | None = None  # after, of the items in wordings that training showed
    held_out: float | None = None  # after, of those in wordings that it never did


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
    missing = unmeasured(claims, arguments.seeds)
    write(claims, seconds, arguments.items, missing)
    for problem in [f"does not hold: {claim}" for claim in claims if not claim.holds] + missing:
        print(problem, file=sys.stderr)
    return 0 if not missing and all(claim.holds for claim in claims) else 1


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

    def claim(text: str, skill: str, language: str, row: Row, holds: bool, after: str) -> Claim:
        wordings = by_wording[after].get((skill, language), {})
        return Claim(
            seed, text, skill, language, row["before"], row["after"], row["mean"], row["low"], row["high"], row["n"],
            holds, wordings.get("seen"), wordings.get("held_out"),
        )  # fmt: skip

    by_wording = {stage: wordings_of(run / f"{stage}-scores") for stage in ("sft", "dpo", "grpo")}
    claims = []
    for skill, languages in pair("base", "sft").items():
        if skill in FOLLOWING:
            for language, row in languages.items():
                claims.append(claim(FOLLOWS, skill, language, row, row["low"] > 0, "sft"))
    for stage, before in (("dpo", "sft"), ("grpo", "dpo")):
        for skill, languages in pair(before, stage).items():
            for language, row in languages.items():
                if skill != LIFTED[stage]:
                    claims.append(claim(COSTS[stage], skill, language, row, row["mean"] >= -COST, stage))
                elif stage == "dpo":
                    turned = row["before"] < 0.1 and row["after"] > 0.9 and row["low"] > 0
                    claims.append(claim(LIFTS[stage], skill, language, row, turned, stage))
                else:
                    holds = row["mean"] >= 0.1 and row["low"] > 0
                    claims.append(claim(LIFTS[stage], skill, language, row, holds, stage))
    for language, row in pair("more-sft", "grpo").get(LIFTED["grpo"], {}).items():
        claims.append(claim(MORE, LIFTED["grpo"], language, row, row["low"] > 0, "grpo"))
    return claims


def wordings_of(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Mean score by skill and language, and there by wording."""
    scores: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in read_results(folder):
        scores.setdefault((row["skill"], row["language"]), {}).setdefault(str(row["wording"]), []).append(row["score"])
    return {key: {w: sum(s) / len(s) for w, s in parts.items()} for key, parts in scores.items()}


def unmeasured(claims: list[Claim], seeds: list[int]) -> list[str]:
    """What must be measured and was not, a line each: without these lines a skill that was skipped would pass."""
    measured = {(claim.seed, claim.text, claim.skill, claim.language) for claim in claims}
    wanted = [(FOLLOWS, skill) for skill in FOLLOWING]
    for stage, lifted in LIFTED.items():
        wanted += [(LIFTS[stage] if skill == lifted else COSTS[stage], skill) for skill in SKILLS]
    wanted.append((MORE, LIFTED["grpo"]))
    keys = [(seed, text, skill, language) for seed in seeds for text, skill in wanted for language in LANGUAGES]
    return [f"seed {key[0]}: {key[1]}: {key[2]} in {key[3]} was not measured" for key in keys if key not in measured]


def write(
    claims: list[Claim], seconds: dict[str, dict[str, float]], items: int, missing: list[str], root: Path = ROOT
) -> None:
    facts: dict[str, Any] = {
        "machine": hardware(), "compute": machine().plain(), "versions": versions(), "code": code_version(),
        "items": items, "seconds": seconds, "claims": [asdict(c) for c in claims],
        "unmeasured": missing,
    }  # fmt: skip
    results = root / "benchmarks" / "results" / "proof.json"
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    held = sum(c.holds for c in claims)
    lines = [
        "# Do the stages do something?",
        "",
        f"Written by `benchmarks/proof.py` (`make proof`). {held} of {len(claims) + len(missing)} claims hold. Seeds "
        f"{', '.join(seconds)}; {items} held-out items per skill and language; differences over the same items with "
        "95% paired bootstrap intervals, in points. Of `after`, `seen` are the items in wordings that training showed, "
        "`held out` those in wordings that it never did.",
        "",
        f"Machine: {facts['machine']['cpu']}, {facts['machine']['cores']} cores, "
        f"{facts['compute']['dtype']} ({facts['compute']['bf16'] or 'no bf16 instructions'}).",
        "",
        "| seed | claim | skill | language | before | after | seen | held out | gain | 95% interval | holds |",
        "|---" * 11 + "|",
    ]  # fmt: skip
    lines += [
        f"| {c.seed} | {c.text} | {c.skill} | {c.language} | {c.before:.1%} | {c.after:.1%} | "
        f"{percent(c.seen)} | {percent(c.held_out)} | {100 * c.gain:+.1f} | "
        f"{100 * c.low:+.1f} to {100 * c.high:+.1f} | {'yes' if c.holds else '**no**'} |"
        for c in claims
    ]
    lines += ["", "Not measured, and so not proved:", "", *(f"- {line}" for line in missing)] if missing else []
    lines += ["", "Seconds of each stage:", "", "| seed | " + " | ".join(next(iter(seconds.values()))) + " |"]
    lines.append("|---" * (1 + len(next(iter(seconds.values())))) + "|")
    lines += [f"| {seed} | " + " | ".join(duration(s) for s in row.values()) + " |" for seed, row in seconds.items()]
    (root / "docs" / "proof.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


if __name__ == "__main__":
    sys.exit(main())

"""What DPO costs the skills that it does not touch, with AdamW and with the Online Merging Optimizer.

    python benchmarks/alignment_tax.py --run runs/fledgling [--seeds 0 1] [--pairs 320] [--items 20] [--out runs/tax]

RUN is a finished run of the recipe `fledgling`: its SFT model is trained on the pairs that turn the identity, without
replay and without likelihood, which is what makes DPO costly. Reward: accuracy and margin of b(ln pi - ln ref) on pairs
that were held out. Cost: the fall of the mean score over all skills but identity, over the same items, with 95% paired
bootstrap intervals. Writes benchmarks/results/alignment_tax.json. Interrupted and started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from found import plain, score, this_machine

from fledge.core.artefact import code_version, versions
from fledge.core.config import build
from fledge.core.machine import compute_dtype, set_switches
from fledge.core.readers import write_jsonl
from fledge.evaluate.metrics import paired_difference
from fledge.model.hf import load_decoder
from fledge.stages import dpo
from fledge.stages.dialogues import Account, read_preferences
from fledge.tokenizer.tokenizer import Tokenizer
from fledge.train.scoring import reference_logp

ROOT = Path(__file__).parents[1]
HELD_OUT = 200  # pairs
BETA = 0.1
RESULTS = ROOT / "benchmarks/results/alignment_tax.json"
UNTOUCHED = ("recall", "arithmetic", "translation", "format", "code", "refusal", "idk")
# name -> optimizer; alpha is large because there are 10 steps, not thousands: drift is steps x alpha x tau
CASES: dict[str, dict[str, Any]] = {
    "AdamW": {"lr": 1e-3},
    "OnDARE 1e-2": {"lr": 1e-3, "merging": {"alpha": 1e-2}},
    "OnDARE 3e-2": {"lr": 1e-3, "merging": {"alpha": 3e-2}},
    "OnTIES 1e-2": {"lr": 1e-3, "merging": {"method": "ties", "alpha": 1e-2}},
    "OnDARE keep .3": {"lr": 1e-3, "merging": {"alpha": 1e-3, "keep": 0.3}},
    "AdamW, lower rate": {"lr": 4e-4},
    "AdamW, 100 steps": {"lr": 3e-4},
    "OnDARE 1e-3, 100 steps": {"lr": 3e-4, "merging": {"alpha": 1e-3}},
    "OnDARE 1e-3 keep .1, 100 steps": {"lr": 3e-3, "merging": {"alpha": 1e-3, "keep": 0.1}},
}
LONG = "100 steps"  # cases of ten passes instead of one


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/tax"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--pairs", type=int, default=320)
    parser.add_argument("--items", type=int, default=20, help="of each skill and language")
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    given = parser.parse_args()
    set_switches()
    given.out.mkdir(parents=True, exist_ok=True)
    lines = (given.run / "world/preferences.jsonl").read_text(encoding="utf-8").splitlines()
    train, test = given.out / "train.jsonl", given.out / "held_out.jsonl"
    write_jsonl(train, map(json.loads, lines[: given.pairs]))
    write_jsonl(test, map(json.loads, lines[-HELD_OUT:]))
    tests, only = given.run / "world/test.jsonl", {"limit": given.items, "skills": UNTOUCHED}
    before = score(given.run / "sft", tests, given.out / "sft-scores", **only)
    rows = [row for row in measured() if row["seed"] not in given.seeds or row["case"] not in given.cases]
    for seed in given.seeds:
        costs: dict[str, list[float]] = {}
        for case in given.cases:
            name = f"{case.replace(' ', '-').replace(',', '')}-{seed}"
            trained(given, CASES[case], 10 if case.endswith(LONG) else 1, seed, train, given.out / name)
            after = score(given.out / name, tests, given.out / f"{name}-scores", **only)
            costs[case] = [after[item] for item in before]
            row: dict[str, Any] = {"seed": seed, "case": case, "machine": this_machine()}
            row["before"] = float(np.mean(list(before.values())))
            row |= reward(given.run / "sft", given.out / name, test)
            row["fall"] = plain(paired_difference(costs[case], list(before.values())))
            bare = f"AdamW, {LONG}" if case.endswith(LONG) else "AdamW"
            if case != bare and bare in costs:
                row["kept"] = plain(paired_difference(costs[bare], costs[case]))
            rows.append(row)
            print(row, flush=True)
            facts = {"code": code_version(), "versions": versions(), "pairs": given.pairs, "items": len(before)}
            RESULTS.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def measured() -> list[dict[str, Any]]:
    """Rows of earlier runs, on whichever machine."""
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.exists() else []
    return rows


def trained(
    given: argparse.Namespace, optimizer: dict[str, Any], epochs: int, seed: int, data: Path, out: Path
) -> None:
    optimizer = {**optimizer, "weight_decay": 0.0, "schedule": {"warmup": 0.1}}
    if "merging" in optimizer:
        folders = {"base": given.run / "pretrain", "sft": given.run / "sft"}
        optimizer["merging"] = {**folders, **optimizer["merging"]}
    values = {
        "model": given.run / "sft", "data": [data], "epochs": epochs, "batch_size": 32, "beta": BETA, "seed": seed,
        "optimizer": optimizer, "compile": "off", "loop": {"tensorboard": False},
    }  # fmt: skip
    dpo.run(build(dpo.Config, values), out)


def reward(reference: Path, model: Path, pairs: Path) -> dict[str, float]:
    """Accuracy and mean margin of the implicit reward on pairs."""
    examples = read_preferences([pairs], Tokenizer.load(model), 1024, "fail", Account())
    places = np.repeat(np.arange(2 * len(examples)), [s.tokens.size for e in examples for s in e.segments[1:]])
    gains = [
        np.bincount(places, reference_logp(examples, load_decoder(folder), compute_dtype("auto"), 8192))
        for folder in (model, reference)
    ]
    gain = (gains[0] - gains[1]).reshape(-1, 2)
    margin = BETA * (gain[:, 0] - gain[:, 1])
    return {"accuracy": float((margin > 0).mean()), "margin": float(margin.mean())}


if __name__ == "__main__":
    main()

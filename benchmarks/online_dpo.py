"""Online DPO against offline DPO: the same prompts, as many answers to each.

    python benchmarks/online_dpo.py --run runs/fledgling [--seeds 0 1] [--steps 16] [--prompts 8] [--out runs/online]

RUN is a finished run of the recipe `fledgling`. Both start from its SFT model and learn sums of two numbers with three
digits, scored by their verifier. Offline, all answers come from the start, and there is one pass over the pairs that
they give; online, each step's come from the weights at that step. Measured on held-out sums, greedy, with 95% paired
bootstrap intervals over items. Writes benchmarks/results/online_dpo.json. Interrupted and started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from found import plain, score

from fledge.core.artefact import code_version, hardware, versions
from fledge.core.config import build
from fledge.core.machine import compute_dtype, set_switches
from fledge.core.readers import read_records, write_jsonl
from fledge.core.records import Preference, Task
from fledge.evaluate.metrics import Estimate, paired_difference
from fledge.stages import dpo, online_dpo
from fledge.stages.rollouts import Sampler
from fledge.stages.training import load_start
from fledge.train.trainee import Trainee

ROOT = Path(__file__).parents[1]
SKILL = "hard_sums"
LOSS = {"beta": 0.1, "nll": 0.1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/online"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=8, help="a step")
    parser.add_argument("--lr", type=float, default=2e-4)
    given = parser.parse_args()
    set_switches()
    given.out.mkdir(parents=True, exist_ok=True)
    tasks = given.out / "tasks.jsonl"
    write_jsonl(tasks, (task for task in read_records(given.run / "world/tasks.jsonl", Task) if task.skill == SKILL))
    tests, only = given.run / "world/test.jsonl", {"skills": [SKILL]}
    before = score(given.run / "sft", tests, given.out / "sft-scores", **only)
    rows: list[dict[str, Any]] = []
    for seed in given.seeds:
        config = online_config(given, tasks, seed)
        pairs = offline_pairs(config, given.out / f"pairs-{seed}.jsonl")
        values = {
            **LOSS, "model": given.run / "sft", "data": [given.out / f"pairs-{seed}.jsonl"], "epochs": 1, "seed": seed,
            "batch_size": -(-pairs // given.steps), **shared(given),
        }  # fmt: skip
        dpo.run(build(dpo.Config, values), given.out / f"offline-{seed}")
        online_dpo.run(config, given.out / f"online-{seed}")
        after = {
            name: score(given.out / f"{name}-{seed}", tests, given.out / f"{name}-{seed}-scores", **only)
            for name in ("offline", "online")
        }
        row: dict[str, Any] = {"seed": seed, "prompts": given.steps * given.prompts, "offline_pairs": pairs}
        row |= {"before": mean(before), **{name: mean(scores) for name, scores in after.items()}}
        row["online over offline"] = plain(difference(after["offline"], after["online"]))
        row["online over SFT"] = plain(difference(before, after["online"]))
        rows.append(row)
        print(row, flush=True)
        facts = {"code": code_version(), "versions": versions(), "hardware": hardware(), "rows": rows}
        path = ROOT / "benchmarks/results/online_dpo.json"
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def shared(given: argparse.Namespace) -> dict[str, Any]:
    optimizer = {"lr": given.lr, "weight_decay": 0.0, "schedule": {"warmup": 0.1}}
    return {"optimizer": optimizer, "compile": "off", "loop": {"tensorboard": False}}


def online_config(given: argparse.Namespace, tasks: Path, seed: int) -> online_dpo.Config:
    rollout = {"prompts": given.prompts, "samples": 8, "max_new_tokens": 80, "leave_out": ["empty", "cut"]}
    values = {
        **LOSS, "model": given.run / "sft", "tasks": [tasks], "steps": given.steps, "rollout": rollout, "seed": seed,
        **shared(given),
    }  # fmt: skip
    return build(online_dpo.Config, values)


def offline_pairs(config: online_dpo.Config, out: Path) -> int:
    """What the start answers to the prompts that the online run draws, as pairs; how many."""
    if not out.exists():
        decoder, tokenizer = load_start(config.model)
        limit = decoder.config.max_position_embeddings
        sampler = Sampler(list(read_records(config.tasks[0], Task)), config, tokenizer, limit)
        start = Trainee(decoder, config.optimizer, compute_dtype(config.dtype))
        counts: Counter[str] = Counter()
        pairs = []
        for _ in range(config.steps):
            for group in sampler.sample(start)[0]:
                if (found := online_dpo.contest(group, config.min_spread, counts)) is not None:
                    chosen, rejected = (group.answers[place].text for place in found[1:])
                    pairs.append(Preference(prompt=group.task.messages, chosen=chosen, rejected=rejected))
        write_jsonl(out, pairs)
    return sum(1 for _ in read_records(out, Preference))


def mean(scores: dict[str, float]) -> float:
    return round(float(np.mean(list(scores.values()))), 4)


def difference(one: dict[str, float], other: dict[str, float]) -> Estimate:
    return paired_difference(list(one.values()), [other[item] for item in one])


if __name__ == "__main__":
    main()

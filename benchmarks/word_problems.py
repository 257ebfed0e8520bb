"""GRPO on real word problems, SVAMP and the short ones of GSM8K, with a model that was pretrained here.

    python benchmarks/word_problems.py --run runs/fledgling --data FOLDER [--seeds 0 1] [--steps 40] [--out runs/words]

RUN is a run of the recipe `fledgling` as far as its stage ``sft``; FOLDER holds eval/svamp_full, eval/aqua_svamp_arith
and eval/gsm8k (docs/real-data.md). SVAMP's 300 published test problems are held out, and so is every problem that
tells the same story; the other stories are halved: one half is shown as equations by SFT, the other is asked by GRPO,
beside as many of GSM8K's problems of at most two steps (its own train and test files). Scores are greedy, before and
after GRPO, over the same items, with 95% paired bootstrap intervals. Writes benchmarks/results/word_problems.json.
Interrupted and started again, it goes on.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from found import evaluated

from fledge.core.artefact import code_version, hardware, versions
from fledge.core.config import build
from fledge.core.machine import set_switches
from fledge.core.readers import write_jsonl
from fledge.core.records import Conversation, Message, Task
from fledge.evaluate.compare import compare
from fledge.stages import grpo, sft
from fledge.train.metrics import read_metrics

ROOT = Path(__file__).parents[1]
LONGEST = 200  # characters of a GSM8K question: what a model of four million parameters may still read
SHORT_TESTS = 200
CURVES = ("reward", "groups_with_spread", "answer_tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/words"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    set_switches()
    given.out.mkdir(parents=True, exist_ok=True)
    counts = prepare(given.data, given.out)
    rows = []
    for seed in given.seeds:
        rows.append(measure(given, seed))
        print(json.dumps(rows[-1]["skills"]), flush=True)
        facts = {"code": code_version(), "versions": versions(), "hardware": hardware()}
        path = ROOT / "benchmarks/results/word_problems.json"
        path.write_text(json.dumps(facts | {"items": counts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def prepare(data: Path, out: Path) -> dict[str, int]:
    """Writes shown.jsonl (dialogues), asked.jsonl and tests.jsonl (tasks); how many of each."""
    stories, published = list(svamp(data)), published_tests(data)
    held = {row["story"] for row in stories if row["question"] in published}
    shown: list[Conversation] = []
    asked: list[Task] = []
    tests: list[Task] = []
    for row in stories:
        if row["story"] in held:
            if row["question"] in published:
                tests.append(task(row, "svamp"))
        elif sum(row["story"].encode()) % 2:
            shown.append(dialogue(row))
        else:
            asked.append(task(row, "svamp"))
    stories_asked = len(asked)
    for place, row in enumerate(gsm8k(data / "eval/gsm8k/train.jsonl.gz")):
        if place % 2:
            shown.append(dialogue(row))
        elif len(asked) < 2 * stories_asked:  # as many of either kind
            asked.append(task(row, "gsm8k"))
    tests += [task(row, "gsm8k") for row in list(gsm8k(data / "eval/gsm8k/test.jsonl"))[:SHORT_TESTS]]
    write_jsonl(out / "shown.jsonl", shown)
    write_jsonl(out / "asked.jsonl", asked)
    write_jsonl(out / "tests.jsonl", tests)
    return {"shown": len(shown), "asked": len(asked), "tests": len(tests)}


def svamp(data: Path) -> Iterator[dict[str, str]]:
    for row in lines(data / "eval/svamp_full/test.jsonl"):
        body = row["Body"].strip()
        question = f"{body}{'' if body.endswith('.') else '.'} {row['Question'].strip()}"
        equation = re.sub(r"(\d)\.0\b", r"\1", row["Equation"]).replace(" ", "")
        if equation.startswith("(") and equation.count("(") == 1:
            equation = equation[1:-1]
        value = plain_number(row["Answer"])
        yield {"story": plain_text(body), "question": question, "answer": f"{equation}={value}", "value": value}


def published_tests(data: Path) -> set[str]:
    """The questions of SVAMP's own test part, as `svamp` words them."""
    wanted = {plain_text(row["context"]) for row in lines(data / "eval/aqua_svamp_arith/svamp.jsonl")}
    found = {row["question"] for row in svamp(data) if plain_text(row["question"]) in wanted}
    if len(found) < 0.95 * len(wanted):
        raise SystemExit(f"only {len(found)} of {len(wanted)} published test problems were found in svamp_full")
    return found


def gsm8k(path: Path) -> Iterator[dict[str, str]]:
    """Problems of at most two steps, without the calculator's marks."""
    for row in lines(path):
        steps, _, value = row["answer"].partition("\n#### ")
        if len(row["question"]) > LONGEST or steps.count("\n") > 1:
            continue
        spoken = re.sub(r"<<.*?>>", "", steps)
        yield {"question": row["question"], "answer": f"{spoken}\n#### {value}", "value": value.replace(",", "")}


def lines(path: Path) -> Iterable[dict[str, Any]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def plain_text(text: str) -> str:
    return " ".join(re.sub(r"[^a-z0-9 ]", " ", text.lower()).split())


def plain_number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else str(value)


def said(role: Literal["user", "assistant"], content: str) -> Message:
    return Message(role=role, content=content)


def dialogue(row: dict[str, str]) -> Conversation:
    return Conversation(messages=(said("user", row["question"]), said("assistant", row["answer"])))


def task(row: dict[str, str], skill: str) -> Task:
    return Task(
        id=f"{skill}-{hashlib.sha256(row['question'].encode()).hexdigest()[:12]}",
        messages=(said("user", row["question"]),), verifier="number", answer={"value": float(row["value"])},
        skill=skill, language="en",
    )  # fmt: skip


def measure(given: argparse.Namespace, seed: int) -> dict[str, Any]:
    shown, trained = given.out / f"sft-{seed}", given.out / f"grpo-{seed}"
    values: dict[str, Any] = {
        "model": given.run / "sft", "data": [given.out / "shown.jsonl"], "epochs": 4, "batch_size": 32, "seed": seed,
        "optimizer": {"name": "muon", "lr": 2e-3, "schedule": {"warmup": 0.05}}, "max_tokens": 512,
        "loop": {"tensorboard": False},
    }  # fmt: skip
    sft.run(build(sft.Config, values), shown)
    values = {
        "model": shown, "tasks": [given.out / "asked.jsonl"], "steps": given.steps, "seed": seed,
        "rollout": {"prompts": 16, "samples": 8, "max_new_tokens": 96}, "max_tokens": 512,
        "optimizer": {"lr": 2e-4, "weight_decay": 0.0, "schedule": {"kind": "constant", "warmup": 0.1}},
        "loop": {"tensorboard": False, "micro_tokens": 16384},
    }  # fmt: skip
    grpo.run(build(grpo.Config, values), trained)
    tests = given.out / "tests.jsonl"
    scores = [
        evaluated(model, tests, given.out / f"{model.name}-scores", max_new_tokens=96) for model in (shown, trained)
    ]
    logged = read_metrics(trained)
    return {
        "seed": seed,
        "skills": compare(*scores)["skills"],
        "curve": {key: [round(row[key], 4) for row in logged if key in row] for key in CURVES},
    }


if __name__ == "__main__":
    main()

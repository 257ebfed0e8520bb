"""What curves look like when a stage goes well, and when it goes wrong in the way that is usual for it.

    python benchmarks/bad_curves.py --run runs/fledgling [--out runs/curves]

RUN is a run of the recipe `fledgling` as far as its stage ``sft``. Each pair of runs differs in what the table below
says. Draws docs/alignment/curves.svg and writes benchmarks/results/bad_curves.json. Interrupted and started again, it
goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from fledge.core.artefact import code_version, hardware, versions
from fledge.core.config import build
from fledge.core.machine import set_switches
from fledge.core.readers import read_records, write_jsonl
from fledge.core.records import Conversation, Preference, Task
from fledge.stages import dpo, grpo, reward, sft
from fledge.train.metrics import read_metrics

ROOT = Path(__file__).parents[1]
GOOD, BAD = "#2f6f9f", "#b5472f"
LENGTH_WANTED = 60  # characters, of the reward that can be fooled


class Case(NamedTuple):
    """``well`` and ``badly``: a stage's values, beyond those that both have."""

    name: str
    stage: Any
    common: dict[str, Any]
    well: dict[str, Any]
    badly: dict[str, Any]
    what: str
    shown: tuple[str, str]


def longer(task: Task, answer: str) -> float:
    """A reward that can be fooled: half for the right answer, half for length."""
    right = str(task.answer["value"]) in answer
    return 0.5 * right + 0.5 * min(1.0, len(answer) / LENGTH_WANTED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/curves"))
    given = parser.parse_args()
    set_switches()
    given.out.mkdir(parents=True, exist_ok=True)
    found = {case.name: both(case, given.out) for case in cases(given.run, given.out)}
    draw(cases(given.run, given.out), found, ROOT / "docs/alignment/curves.svg")
    facts = {"code": code_version(), "versions": versions(), "hardware": hardware(), "curves": found}
    path = ROOT / "benchmarks/results/bad_curves.json"
    path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def cases(run: Path, out: Path) -> list[Case]:
    world, start = run / "world", run / "sft"

    def few(name: str, source: str, record: type[Any], count: int, wanted: Callable[[Any], bool]) -> Path:
        path = out / f"{name}.jsonl"
        write_jsonl(path, islice(filter(wanted, read_records(world / source, record)), count))
        return path

    dialogues = few("dialogues", "sft.jsonl", Conversation, 960, lambda row: True)
    known = few("known-dialogues", "sft.jsonl", Conversation, 64, lambda row: True)
    pairs = few("pairs", "preferences.jsonl", Preference, 320, lambda row: True)
    sums = few("sums", "preferences.jsonl", Preference, 400, lambda row: row.meta.get("skill") == "arithmetic")
    tasks = few("tasks", "tasks.jsonl", Task, 400, lambda row: row.skill == "hard_sums")
    constant = {"weight_decay": 0.0, "schedule": {"kind": "constant", "warmup": 0.1}}
    rollout = {"prompts": 8, "samples": 8, "max_new_tokens": 80}

    def rate(lr: float) -> dict[str, Any]:
        return {"optimizer": {"lr": lr, **constant}}

    loop = {"loop": {"tensorboard": False, "probe_steps": 2}}
    group = {"model": start, "tasks": [tasks], "steps": 24, "rollout": rollout, **loop}
    return [
        Case(
            "SFT", sft, {"model": run / "pretrain", "batch_size": 32, "steps": 30, **loop, **rate(1e-3)},
            {"data": [dialogues]}, {"data": [known]}, "64 dialogues, shown 15 times", ("loss", "grad_norm"),
        ),
        Case(
            "DPO", dpo, {"model": start, "data": [pairs], "batch_size": 16, "epochs": 1, **loop},
            {"nll": 1.0, **rate(3e-4)}, rate(2e-3),
            "a rate seven times as high, no likelihood beside it", ("margin", "logp_chosen"),
        ),
        Case(
            "reward model", reward, {"model": start, "batch_size": 16, "held_out": 0.3, **loop, **rate(3e-4)},
            {"data": [pairs], "epochs": 2}, {"data": [sums], "epochs": 2},
            "pairs whose difference it cannot see: sums right and wrong", ("accuracy", "held_out_accuracy"),
        ),
        Case("GRPO", grpo, group, rate(2e-4), rate(4e-3), "a rate twenty times as high", ("reward", "entropy")),
        Case(
            "GRPO, reward fooled", grpo, {**group, **rate(2e-4)}, {},
            {"rewards": [{"kind": "function", "function": "bad_curves:longer"}]},
            "half of the reward is for length", ("reward", "answer_tokens"),
        ),
    ]  # fmt: skip


def both(case: Case, out: Path) -> dict[str, dict[str, list[list[float]]]]:
    """well | badly -> metric -> [step, value] of each step that has it."""
    curves = {}
    for how, values in (("well", case.well), ("badly", case.badly)):
        folder = out / f"{case.name.replace(', ', '-').replace(' ', '-').lower()}-{how}"
        case.stage.run(build(case.stage.Config, {**case.common, **values}), folder)
        rows = read_metrics(folder)
        curves[how] = {
            key: [[row["step"], round(row[key], 4)] for row in rows if key in row] for key in case.shown
        }
        print(f"{folder.name}: " + ", ".join(f"{key} {v[0][1]} -> {v[-1][1]}" for key, v in curves[how].items()))
    return curves


def draw(given: list[Case], found: dict[str, Any], path: Path) -> None:
    """One row a case, one panel a metric."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.hashsalt": "curves", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9.6, 2.1 * len(given)), layout="constrained")
        FigureCanvasSVG(figure)
        rows = figure.subplots(len(given), 2)
        for case, row in zip(given, rows, strict=True):
            for key, axes in zip(case.shown, row, strict=True):
                for how, colour in (("well", GOOD), ("badly", BAD)):
                    points = found[case.name][how][key]
                    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.5, label=how)
                axes.set_title(f"{case.name}: {key}", loc="left", fontsize=9)
                axes.spines[["top", "right"]].set_visible(False)
            row[0].set_title(f"{case.name}: {case.shown[0]}\nbadly: {case.what}", loc="left", fontsize=9)
            row[0].legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()

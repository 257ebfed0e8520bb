"""The course's labs at their smallest: each runs on a Hugging Face folder, and scores before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stages_small import Small

from fledge.evaluate.compare import compare, read_scores
from fledge.execute import execute
from fledge.recipe import load_plan

LABS = Path(__file__).parents[2] / "examples" / "labs"


def run(small: Small, out: Path, lab: str, *overrides: str) -> tuple[Path, dict[str, Any]]:
    """The run's folder and what changed between the two evaluations."""
    given = [f"model={small.at('pretrain')}", *overrides]
    plan = load_plan(str(LABS / f"{lab}.yaml"), given, out)
    execute(plan)
    return plan.folder, compare(plan.folder / "before", plan.folder / "after")["skills"]


@pytest.mark.parametrize("lab", ["instructions", "identity", "problems"])
def test_each_scores_before_and_after(lab: str, tmp_path: Path) -> None:
    plan = load_plan(str(LABS / f"{lab}.yaml"), [], tmp_path)
    scored = [step for step in plan.steps if step.stage == "evaluate"]
    assert [step.name for step in scored] == ["before", "after"]
    assert scored[0].config.tasks == scored[1].config.tasks


@pytest.mark.long
def test_identity_is_learned_by_pairs(small: Small, tmp_path: Path) -> None:
    folder, skills = run(small, tmp_path, "identity", f"folder={LABS}", "rate=1e-2", "epochs=20")
    assert (folder / "dpo" / "adapter_model.safetensors").exists()
    before, after = (
        sum(skills["identity"][language][side] for language in ("zh", "en")) for side in ("before", "after")
    )
    assert before == 0
    assert after > 1, "of 2: mostly, in both languages together"


@pytest.mark.long
def test_instructions(small: Small, tmp_path: Path) -> None:
    folder, skills = run(small, tmp_path, "instructions", "rate=1e-3", "epochs=1", "items=2")
    assert read_scores(folder / "after")["skills"].keys() == skills.keys()
    assert json.loads((folder / "sft" / "manifest.json").read_text(encoding="utf-8"))["metrics"]["loss"] < 5.5


@pytest.mark.long
def test_problems(small: Small, tmp_path: Path) -> None:
    sizes = ("steps=2", "prompts=2", "samples=2", "tokens=16")
    folder, skills = run(small, tmp_path, "problems", f"folder={LABS}", *sizes)
    assert set(skills["word_problems"]) == {"zh", "en"}
    assert (folder / "grpo" / "model.safetensors").exists()


def test_no_problem_of_the_tests_is_trained_on() -> None:
    train, tests = (
        {
            json.loads(line)["messages"][0]["content"]
            for line in (LABS / f"problems-{name}.jsonl").open(encoding="utf-8")
        }
        for name in ("train", "tests")
    )
    assert len(train) == 160
    assert not train & tests

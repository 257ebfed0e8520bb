"""Run under torchrun by test_stages_ranks_rewards: stages one after the other, and what each rank says of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from rollouts_caller import config, make_caller, make_words, tasks

from fledge.core.config import build
from fledge.core.errors import FledgeError
from fledge.recipe import stage_module
from fledge.stages.grpo import make_sampler
from fledge.stages.training import train, training_work
from fledge.train.mesh import Mesh, open_mesh


def trained(stage: str, values: dict[str, Any], out: Path) -> dict[str, Any]:
    """What the source holds after the last step, as a snapshot would keep it; or the error."""
    module = stage_module(stage)
    built = build(module.Config, values)
    try:
        with training_work(stage, built, out, False) as (work, mesh):
            training = module.prepare(built, work, mesh)
            train(built, work, training, mesh)
            return {"state": training.source.state()}
    except FledgeError as problem:
        return {"error": str(problem)}


def called(mesh: Mesh) -> dict[str, Any]:
    """What was sampled with a tool that says something else on each rank, from a policy that each has whole."""
    words = make_words()
    settings = config({"prompts": 2, "tool": {"use": "ranks_functions:tool"}}, max_tokens=256)
    sampler = make_sampler(settings, tasks("2+3?", "go"), words, 256, mesh)
    groups, row = sampler.sample(make_caller(words))
    return {"row": row, "answers": [[answer.plain() for answer in group.answers] for group in groups]}


def main(jobs: Path) -> None:
    torch.set_num_threads(1)
    with open_mesh() as mesh:
        assert mesh == Mesh(mesh.rank, 2, "cpu")
        (jobs.parent / f"tool-{mesh.rank}.json").write_text(json.dumps(called(mesh)), encoding="utf-8")
        for name, (stage, values) in json.loads(jobs.read_text(encoding="utf-8")).items():
            said = trained(stage, values, jobs.parent / name)
            (jobs.parent / f"{name}-{mesh.rank}.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

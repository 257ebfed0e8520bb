"""Run under torchrun by test_stages_ranks_rewards: stages one after the other, and what each rank says of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from fledge.core.config import build
from fledge.core.errors import FledgeError
from fledge.recipe import stage_module
from fledge.stages.training import train, training_work
from fledge.train.mesh import Mesh, open_mesh


def trained(stage: str, values: dict[str, Any], out: Path) -> dict[str, Any]:
    """What the source holds after the last step, as a snapshot would keep it; or the error."""
    module = stage_module(stage)
    config = build(module.Config, values)
    try:
        with training_work(stage, config, out, False) as (work, mesh):
            training = module.prepare(config, work, mesh)
            train(config, work, training, mesh)
            return {"state": training.source.state()}
    except FledgeError as problem:
        return {"error": str(problem)}


def main(jobs: Path) -> None:
    torch.set_num_threads(1)
    with open_mesh() as mesh:
        assert mesh == Mesh(mesh.rank, 2, "cpu")
        for name, (stage, values) in json.loads(jobs.read_text(encoding="utf-8")).items():
            said = trained(stage, values, jobs.parent / name)
            (jobs.parent / f"{name}-{mesh.rank}.json").write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Run under torchrun by test_train_ranks: gradients of every objective on this many ranks, written by rank 0."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from test_train_gradient import CASES, module
from train_examples import pairs

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.stages.dpo import DpoSettings
from fledge.stages.online_dpo import OnlineDpo
from fledge.train.batch import empty_example
from fledge.train.loop import GlobalBatch, Loop, LoopConfig
from fledge.train.mesh import Mesh, open_mesh
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee


def main(out: Path, shape: str) -> None:
    torch.set_num_threads(1)
    with open_mesh() as mesh:
        config = DecoderConfig.model_validate_json(shape)
        for name, (objective, make) in CASES.items():
            decoder = Decoder(config)
            decoder.initialise(0)
            decoder = module(name, decoder)
            trainee = Trainee(decoder, OptimizerConfig(lr=1.0), torch.float32, mesh)
            loop = Loop(LoopConfig(micro_tokens=64), {"policy": trainee}, None, objective, 1, out, "", mesh)  # type: ignore[arg-type]
            examples = make(True)
            totals: dict[str, list[float]] = {}
            denominators = objective.denominators(examples)
            loop.accumulate("policy", examples, denominators, totals)
            row = loop.reduce(totals)
            grads = {n: p.grad.full_tensor() for n, p in decoder.named_parameters() if p.grad is not None}  # type: ignore[attr-defined]
            odd = loop.reduce({"both": [1.0, 1.0], f"only_{mesh.rank}": [1.0, 2.0]})
            assert odd == {"both": 1.0, **{f"only_{rank}": 0.5 for rank in range(mesh.world)}}, odd
            if mesh.first:
                save_file({**grads, "loss": torch.tensor(row["loss"])}, out / f"{name}.safetensors")
        for name in UNEVEN:
            decoder = Decoder(config)
            decoder.initialise(0)
            row = uneven(name, Trainee(decoder, OptimizerConfig(lr=1.0), torch.float32, mesh), out, mesh)
            if mesh.first:
                (out / f"{name}.json").write_text(json.dumps(row))
        waits(config, out, mesh)


# cases of which the first and the last example are taken, so that the ranks have other things to log
UNEVEN = ("online-dpo", "dpo-replay")


def uneven(name: str, trainee: Trainee, out: Path, mesh: Mesh) -> dict[str, float]:
    """What is logged of a global batch of two examples: a pair, and nothing or a dialogue."""
    objective, make = CASES[name]
    examples = [make(True)[0], make(True)[-1]]
    loop = Loop(LoopConfig(), {"policy": trainee}, None, objective, 1, out, "", mesh)  # type: ignore[arg-type]
    totals: dict[str, list[float]] = {}
    loop.accumulate("policy", examples, objective.denominators(examples), totals)
    return loop.reduce(totals)


class Sparse:
    """In its second step nothing is trained on, in its others one example: other ranks have nothing."""

    def next(self, step: int, models: Any) -> GlobalBatch:
        return GlobalBatch([pairs()[0] if step != 1 else empty_example()])


def waits(config: DecoderConfig, out: Path, mesh: Mesh) -> None:
    """What nobody trains on moves nothing on any rank; what one rank trains on moves all of them."""
    decoder = Decoder(config)
    decoder.initialise(0)
    trainee = Trainee(decoder, OptimizerConfig(lr=1e-3), torch.float32, mesh)
    objective = OnlineDpo(DpoSettings(), compare=False)
    loop = Loop(LoopConfig(), {"policy": trainee}, Sparse(), objective, 3, out, "", mesh)  # type: ignore[arg-type]
    moved = []
    for step in range(3):
        before = {name: weight.clone() for name, weight in trainee.full_state().items()}
        loop.step(step)
        moved.append(any(not torch.equal(before[name], weight) for name, weight in trainee.full_state().items()))
    assert moved == [True, False, True], moved


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

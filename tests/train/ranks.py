"""Run under torchrun by test_train_ranks: gradients of every objective on this many ranks, written by rank 0."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from test_train_gradient import CASES, module

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.train.loop import Loop, LoopConfig
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

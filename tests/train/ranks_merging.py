"""Run under torchrun by test_train_merging: a few merged steps on this many ranks; rank 0 writes the weights."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fledge.core.errors import ConfigError
from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.train.mesh import Mesh, open_mesh
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee


def trainee(folder: Path, shape: DecoderConfig, mesh: Mesh, method: str) -> Trainee:
    decoder = Decoder(shape)
    decoder.initialise(0)
    merging = {"base": folder / "base", "sft": folder / "sft", "method": method, "alpha": 1e-3, "keep": 0.5, "every": 2}
    settings = OptimizerConfig.model_validate({"lr": 1e-2, "clip": 1e9, "merging": merging})
    return Trainee(decoder, settings, torch.float32, mesh)


def run(folder: Path, shape: DecoderConfig, mesh: Mesh) -> dict[str, Tensor]:
    """Four steps with gradients that are the same on every rank."""
    made = trainee(folder, shape, mesh, "dare")
    for step in range(4):
        for index, parameter in enumerate(made.decoder.parameters()):
            generator = torch.Generator().manual_seed(100 * step + index)
            whole = torch.randn(parameter.shape, generator=generator)
            if mesh.sharded:
                from torch.distributed.tensor import distribute_tensor

                mine, places = parameter.device_mesh, parameter.placements  # type: ignore[attr-defined]
                parameter.grad = distribute_tensor(whole, mine, places)
            else:
                parameter.grad = whole
        made.step(step, 4)
    return made.full_state()


def main(folder: Path, shape: str) -> None:
    torch.set_num_threads(1)
    with open_mesh() as mesh:
        config = DecoderConfig.model_validate_json(shape)
        state = run(folder, config, mesh)
        try:
            trainee(folder, config, mesh, "ties")
            refused = "not refused"
        except ConfigError as error:
            refused = str(error)
        if mesh.first:
            save_file({name: value.clone() for name, value in state.items()}, folder / "merged.safetensors")
            (folder / "refused.txt").write_text(refused)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

"""Run under torchrun by test_train_stop: a run in which only the last rank is told to stop, in its second step."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fledge.model.config import DecoderConfig
from fledge.model.decoder import Decoder
from fledge.train.batch import single
from fledge.train.loop import GlobalBatch, Loop, LoopConfig
from fledge.train.mesh import Mesh, open_mesh
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee


class Interrupting:
    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh

    def next(self, step: int, models: Any) -> GlobalBatch:
        if step == 1 and self.mesh.rank == self.mesh.world - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return GlobalBatch([single([1, 2, 3], np.array([0, 1, 1], np.float32)) for _ in range(2)])

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


def main(out: Path, shape: str) -> None:
    torch.set_num_threads(1)
    with open_mesh() as mesh:
        decoder = Decoder(DecoderConfig.model_validate_json(shape))
        decoder.initialise(0)
        trainee = Trainee(decoder, OptimizerConfig(lr=1e-3), torch.float32, mesh)
        config = LoopConfig(snapshot_seconds=1e9, tensorboard=False)
        loop = Loop(config, {"policy": trainee}, Interrupting(mesh), Likelihood(), 6, out, "", mesh)
        try:
            loop.run()
        except KeyboardInterrupt:
            (out / f"stopped-{mesh.rank}").touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

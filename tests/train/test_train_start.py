"""What a process loads before its first step: torch's compiler takes a second and more, and 100 MiB."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fledge.model import pass_loops, tiles
from fledge.model.decoder import Decoder
from fledge.model.hf import save_decoder

STEP = """
import sys
import torch
from train_examples import documents
from fledge.model.compiled import compile_model
from fledge.model.hf import load_decoder
from fledge.train.batch import pack
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

compile_model(sys.argv[2] == "compiled", torch.bfloat16)
trainee = Trainee(load_decoder(sys.argv[1]), OptimizerConfig(lr=1e-3, name=sys.argv[3]), torch.bfloat16)
loss, _, _ = trainee.loss(pack(documents()), Likelihood(), Likelihood().denominators(documents()))
loss.backward()
trainee.collect()
trainee.step(0, 10)
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""


@pytest.mark.parametrize(("how", "optimizer"), [("plain", "adamw"), ("compiled", "muon")])
def test_a_step_does_not_import_torchs_compiler(
    tiny_decoder: Decoder, tmp_path: Path, how: str, optimizer: str
) -> None:
    if how == "compiled" and (why := pass_loops.missing() or tiles.missing(torch.bfloat16)):
        pytest.skip(f"torch's compiler is needed here: {why}")
    save_decoder(tiny_decoder, tmp_path)
    command = [sys.executable, "-c", STEP, str(tmp_path), how, optimizer]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"

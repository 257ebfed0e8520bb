"""What a process loads before its first step: torch's compiler takes a second and more, where nothing is compiled."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fledge.model.decoder import Decoder
from fledge.model.hf import save_decoder

STEP = """
import sys
import torch
from train_examples import documents
from fledge.model.hf import load_decoder
from fledge.train.batch import pack
from fledge.train.objective import Likelihood
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee

trainee = Trainee(load_decoder(sys.argv[1]), OptimizerConfig(lr=1e-3), torch.bfloat16)
loss, _, _ = trainee.loss(pack(documents()), Likelihood(), Likelihood().denominators(documents()))
loss.backward()
trainee.collect()
trainee.step(0, 10)
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""


def test_a_step_without_compiling_does_not_import_the_compiler(tiny_decoder: Decoder, tmp_path: Path) -> None:
    save_decoder(tiny_decoder, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", STEP, str(tmp_path)], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"

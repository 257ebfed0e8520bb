"""Two gloo ranks under torchrun with FSDP2: the same gradient as one process, and the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from ranks import UNEVEN, uneven
from safetensors.torch import load_file
from test_train_gradient import CASES, assert_same, gradient, module

from fledge.model.decoder import Decoder
from fledge.train.mesh import Mesh
from fledge.train.optimizer import OptimizerConfig
from fledge.train.trainee import Trainee


def torchrun(ranks: int, script: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_ranks_have_the_gradient_of_one(tiny_decoder: Decoder, tmp_path: Path) -> None:
    torchrun(2, Path(__file__).with_name("ranks.py"), str(tmp_path), tiny_decoder.config.model_dump_json())
    for name, (objective, make) in CASES.items():
        whole, loss = gradient(module(name, tiny_decoder), objective, [make(True)])
        sharded = load_file(tmp_path / f"{name}.safetensors")
        assert float(sharded.pop("loss")) == pytest.approx(loss, rel=1e-5)
        assert_same(whole, sharded)
    for name in UNEVEN:
        trainee = Trainee(deepcopy(tiny_decoder), OptimizerConfig(lr=1.0))
        assert json.loads((tmp_path / f"{name}.json").read_text()) == pytest.approx(
            uneven(name, trainee, tmp_path, Mesh()), rel=1e-5
        )
    assert torch.get_num_threads() == 1

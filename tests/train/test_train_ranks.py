"""Two gloo ranks under torchrun with FSDP2: the same gradient as one process, and the same run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from test_train_gradient import CASES, assert_same, gradient, module

from fledge.model.decoder import Decoder


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
    assert torch.get_num_threads() == 1

"""Switches of the process: no import sets them, commands do, variables turn them off; float32 products stay exact."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from typing import Any

import pytest
import torch

from fledge.core import machine
from fledge.core.machine import EXACT, SWITCHES, bf16_instructions, copy_rate, fast_float32_products, product_error

LOOK = """
import importlib, json, os, pkgutil, sys
import numpy, psutil, torch

def state():
    return [torch.get_num_threads(), torch.get_float32_matmul_precision(), dict(os.environ)]

def kept():  # MiB that a freed tensor of 256 leaves behind in this process
    before = psutil.Process().memory_info().rss
    tensor = torch.ones(256 << 20, dtype=torch.uint8)
    del tensor
    return (psutil.Process().memory_info().rss - before) / 2**20
"""


def python(code: str, **variables: str) -> Any:
    """What the code prints as JSON at its end, in a process of its own in which no switch is set."""
    own = ("OMP_NUM_THREADS", "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "FLEDGE_KEEP_ALLOCATOR", "FLEDGE_KEEP_PRECISION")
    environment = {key: value for key, value in os.environ.items() if key not in own}
    done = subprocess.run(
        [sys.executable, "-c", LOOK + code], capture_output=True, text=True, env={**environment, **variables},
        timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_imports_switch_nothing() -> None:
    """Every module of the package, those too that `import fledge` leaves for later."""
    code = """
torch.set_num_threads(3)
before = state()
import fledge
names = [m.name for m in pkgutil.walk_packages(fledge.__path__, "fledge.") if ".jail." not in m.name]
for name in names:
    importlib.import_module(name)
changed = [key for key in before[2].keys() | os.environ.keys() if before[2].get(key) != os.environ.get(key)]
print(json.dumps([len(names), before[:2], state()[:2], changed, kept()]))
"""
    modules, before, after, changed, left = python(code)
    assert modules > 100
    assert after == before
    assert not changed
    assert left < 64, "freed memory went back to the system, as without fledge"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")
def test_commands_set_every_switch() -> None:
    code = """
torch.set_num_threads(3)
from fledge.core.machine import set_switches
print(json.dumps([set_switches(), state()[0], os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"], kept()]))
"""
    found, threads, cache, left = python(code)
    assert list(found) == [switch.name for switch in SWITCHES]
    assert found["threads"] == threads == machine.cores()
    assert found["onednn_cache"] == int(cache) == 4096
    assert found["reuse_freed_memory"] is True
    assert left > 200, "freed memory stays with the process"


def test_variables_turn_switches_off() -> None:
    code = """
from fledge.core.machine import set_switches
torch.set_float32_matmul_precision("high")
print(json.dumps([set_switches(), state()[0], kept()]))
"""
    found, threads, left = python(
        code, OMP_NUM_THREADS="1", FLEDGE_KEEP_ALLOCATOR="1", ONEDNN_PRIMITIVE_CACHE_CAPACITY="1024",
        FLEDGE_KEEP_PRECISION="1",
    )  # fmt: skip
    expected = {"threads": 1, "reuse_freed_memory": False, "onednn_cache": 1024, "matmul_precision": "high"}
    assert found == expected
    assert threads == 1
    assert left < 64
    for switch in SWITCHES:
        assert "=" in switch.off, "says which variable"


def test_float32_products_stay_exact() -> None:
    assert product_error() < EXACT / 10
    chosen = fast_float32_products()
    assert product_error() < EXACT
    assert chosen in ("highest", "medium")
    if bf16_instructions() == "amx":
        assert chosen == "highest"


def test_a_precision_that_rounds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor taken for one that gains: what decides then is the error that is measured."""
    monkeypatch.setattr(machine, "_gains_from_onednn", lambda: True)
    monkeypatch.delenv("FLEDGE_KEEP_PRECISION", raising=False)
    torch.set_float32_matmul_precision("medium")
    rounds = product_error() > EXACT
    assert rounds or bf16_instructions() != "amx", "with AMX, medium rounds to bf16: the measurement must see it"
    torch.set_float32_matmul_precision("highest")
    chosen = fast_float32_products()
    assert chosen == ("highest" if rounds or torch.cuda.is_available() else "medium")
    assert torch.get_float32_matmul_precision() == chosen
    torch.set_float32_matmul_precision("high")  # a user's own choice is left alone
    assert fast_float32_products() == "high"


def test_a_copy_has_a_rate() -> None:
    assert 0.1 < copy_rate(megabytes=8, seconds=0.02) < 10_000

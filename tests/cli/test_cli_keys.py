"""What the doors say of themselves is true of all that is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fledge.recipe import shipped
from fledge.table import STAGES

ROOT = Path(__file__).parents[2]


def said(*arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "fledge.cli", *arguments], capture_output=True, text=True, timeout=60, check=True,
        env={"COLUMNS": "200", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
    ).stdout  # fmt: skip


def test_evaluate_lists_its_keys_without_a_model() -> None:
    keys = said("evaluate", "--keys")
    assert "max_new_tokens" in keys
    assert "temperature" in keys


def test_run_names_every_shipped_recipe() -> None:
    text = said("run", "--help")
    for name in shipped():
        assert name in text


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_readmes_name_every_stage(readme: str) -> None:
    rows = (ROOT / readme).read_text(encoding="utf-8").splitlines()
    line = next(row for row in rows if "`fledge STAGE [" in row)
    for stage in STAGES:  # some have a door, and a row, of their own
        assert f"`{stage}`" in line or any(row.startswith(f"| `fledge {stage} ") for row in rows), stage

"""How many steps a stage makes, and that no row is left over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stages_small import Small

from fledge.train.schedule import steps_of


@pytest.mark.parametrize(
    ("examples", "epochs", "batch", "steps"),
    [(95, 1.0, 64, 2), (12_000, 2.0, 48, 500), (1200, 3.0, 32, 112), (95, 0.5, 64, 1), (3, 0.1, 64, 1), (96, 1, 32, 3)],
)
def test_steps(examples: int, epochs: float, batch: int, steps: int) -> None:
    assert steps_of(examples, epochs, batch) == steps


def test_every_row_is_taken(small: Small, tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "1+1=?"}, {"role": "assistant", "content": "2"}]}
    data = tmp_path / "data.jsonl"
    data.write_text((json.dumps(row) + "\n") * 9, encoding="utf-8")
    whole = small.run("sft", tmp_path / "whole", data=[str(data)], batch_size=7, epochs=1)["metrics"]
    assert (whole["steps"], whole["rows_never_taken"]) == (2, 0)
    half = small.run("sft", tmp_path / "half", data=[str(data)], batch_size=3, epochs=0.7)["metrics"]
    assert (half["steps"], half["rows_never_taken"]) == (2, 3)
    pairs = small.run("dpo", tmp_path / "dpo", replay=None, batch_size=20, epochs=1)["metrics"]
    assert (pairs["steps"], pairs["rows_never_taken"]) == (2, 0)

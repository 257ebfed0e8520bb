"""What the benchmarks of alignment share: scores of a model's answers, and results that outlive a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fledge.core.artefact import hardware
from fledge.core.config import build
from fledge.core.machine import machine
from fledge.evaluate import stage as evaluation
from fledge.evaluate.metrics import Estimate


def evaluated(model: Path, tasks: Path, out: Path, **more: Any) -> Path:
    """Greedy answers of a model, scored into ``out``."""
    evaluation.run(build(evaluation.Config, {"model": model, "tasks": tasks, **more}), out)
    return out


def score(model: Path, tasks: Path, out: Path, **more: Any) -> dict[str, float]:
    """Of each item, by its id."""
    rows = (evaluated(model, tasks, out, bootstrap=0, **more) / "results.jsonl").read_text(encoding="utf-8")
    return {row["id"]: float(row["score"]) for row in map(json.loads, rows.splitlines())}


def plain(value: Estimate) -> dict[str, Any]:
    return {key: round(number, 4) for key, number in value.plain().items()}


def this_machine() -> str:
    """As a row names it: rows of several machines stand in one table."""
    return f"{hardware()['cpu']}, {machine().dtype}"

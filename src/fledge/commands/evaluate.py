"""``fledge evaluate``: score one model."""

from __future__ import annotations

import shlex
from pathlib import Path

from fledge.commands.stage import run_built
from fledge.commands.summary import print_scores
from fledge.core.config import with_overrides
from fledge.core.errors import ConfigError
from fledge.recipe import stage_config


def evaluate(
    model: Path, tasks: Path | None, overrides: list[str], out: Path | None, dry_run: bool, redo: bool
) -> None:
    model = model.expanduser()
    given = {text.partition("=")[0] for text in overrides}
    values: dict[str, object] = {"model": str(model)}
    if tasks is not None:
        values["tasks"] = str(tasks.expanduser())
    elif "tasks" not in given:
        values["tasks"] = str(_tasks_of_run(model))
    out = out or model.parent / f"{model.name}-scores"
    config = stage_config("evaluate", with_overrides(values, overrides), "fledge evaluate")
    run_built("evaluate", config, out, dry_run, redo)
    if not dry_run:
        print_scores({model.name: out})


def _tasks_of_run(model: Path) -> Path:
    found = sorted(model.parent.glob("*/test.jsonl"))
    if not found:
        raise ConfigError(
            f"{model}: the run around this model has no test.jsonl; name the tasks:\n"
            f"  fledge evaluate {shlex.quote(str(model))} --tasks FILE"
        )
    return found[0]
